"""What is wrong with the tables of a gallery, as far as they tell it themselves."""

RESTORE = "put back a backup, with reid-gallery restore, and keep the damaged gallery for what is newer in it"


class DamagedDatabase(OSError):
    """Tables cannot be read, or must not be changed, for the damage that was `found`, as a sentence tells."""

    def __init__(self, sentence: str, found: str) -> None:
        super().__init__(f"{sentence}; {RESTORE}")
        self.found = found


# How many rows of one table lack those of the next that they stand on; none in a sound gallery.
CROSS_CHECKS = {
    "photos without an item": """
        SELECT count(*) FROM media WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.media_number = media.number)
    """,
    "items without their photo": """
        SELECT count(*) FROM items WHERE NOT EXISTS (SELECT 1 FROM media WHERE media.number = items.media_number)
    """,
    "items without their identity": """
        SELECT count(*) FROM items WHERE identity_number IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM identities WHERE identities.number = items.identity_number)
    """,
    "vectors without their item": """
        SELECT count(*) FROM vectors WHERE owner_kind = 'item'
        AND NOT EXISTS (SELECT 1 FROM items WHERE items.number = vectors.owner_number)
    """,
    "vectors without their model": """
        SELECT count(*) FROM vectors
        WHERE NOT EXISTS (SELECT 1 FROM models WHERE models.model_id = vectors.model_id)
    """,
}

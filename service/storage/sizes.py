"""About how much room tables take, which a database does not tell of each."""

from sqlalchemy import Column, Table, func, select

from service.storage.database import Database
from service.storage.tables import media, models, operations, queries, vectors

MEASURED = 1000  # rows
ROW_BYTES = 150  # of an entry of a log, beside what it says
SAID: dict[Table, tuple[Column[str], ...]] = {
    queries: (queries.c.asked, queries.c.conditions, queries.c.matches),
    operations: (operations.c.before, operations.c.after),
}


def bytes_of_entry(database: Database, log: Table) -> float | None:
    """The mean of the last thousand entries of a log, None where there are none; errors as of a `Database`."""
    lengths = [func.coalesce(func.length(column), 0) for column in SAID[log]]
    latest = select(*lengths).order_by(log.c.seq.desc()).limit(MEASURED)
    sizes = [ROW_BYTES + sum(said) for said in database.read(latest)]
    return sum(sizes) / len(sizes) if sizes else None


def bytes_of_log(database: Database, log: Table) -> int:
    """All entries of a log."""
    ((entries,),) = database.read(select(func.count()).select_from(log))
    return int(entries * (bytes_of_entry(database, log) or 0))


def bytes_of_vectors(database: Database) -> int:
    """The vectors of all models, without what a database puts around them."""
    of_models = select(func.count() * models.c.dimension).join_from(vectors, models).group_by(models.c.model_id)
    return 4 * sum(int(values) for (values,) in database.read(of_models))


def photos(database: Database) -> int:
    """How many photos the items are of."""
    return int(database.read(select(func.count()).select_from(media))[0][0])

"""The queue of questions about who is who in a gallery, and the catalogue that comes of the answers."""

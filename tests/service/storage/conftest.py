"""A gallery's tables in each of the two places where they can be."""

import pytest

from service.storage.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def reopen(request, tmp_path):
    """A function that opens the gallery of the test, again and again."""
    url = request.getfixturevalue("shared_url") if request.param == "postgresql" else None
    return lambda: Database(tmp_path / "gallery", url)


@pytest.fixture
def database(reopen):
    """The tables of an empty gallery."""
    with reopen() as database:
        yield database

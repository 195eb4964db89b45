"""A gallery on a server: what is refused, what is said of it, and how it goes on when the server was away."""

from urllib.parse import quote

import pytest
from sqlalchemy import create_engine, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from service.records import Filter
from service.storage.database import Database
from service.storage.migrations.steps import STEPS
from service.storage.store import Store
from service.storage.tables import metadata, operations

LOG = insert(operations).values(time=0, actor="", request_id="", batch_id="", kind="test")
TARGETS = select(operations.c.target).order_by(operations.c.seq)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "gallery"


def refused(error, folder, url, *named):
    """The message with which an opening is refused: one line without the password."""
    with pytest.raises(error) as raised:
        Database(folder, url)
    message = str(raised.value)
    assert "\n" not in message
    assert "p%40ss" not in message and "p@ss" not in message
    for name in named:
        assert name in message
    return message


def schema_of(url):
    return url.rpartition("%3D")[2]


def test_a_message_names_the_server_and_never_the_password(postgresql, folder, shared_url):
    name = f"postgresql://reid@127.0.0.1:{postgresql.port}/postgres"
    with Database(folder, shared_url) as database:
        assert database.name == name
        assert postgresql.PASSWORD not in repr(vars(database))
    refused(OSError, folder, shared_url.replace("p%40ss", "p%40ssword"), name, "password authentication failed")
    refused(OSError, folder, shared_url.replace("/postgres?", "/postgresx?"), f"{name}x", "does not exist")
    refused(OSError, folder, shared_url.replace(f":{postgresql.port}/", ":1/"), "127.0.0.1:1/", "refused")
    refused(ValueError, folder, "mysql://reid:p%40ss@host/db", "expected postgresql+psycopg://")
    refused(ValueError, folder, "postgresql://reid:p%40ss@host:port/db", "expected postgresql+psycopg://")
    bare = shared_url.replace(quote(postgresql.PASSWORD, safe=""), "p@ssword")
    assert "p@ssword" not in refused(ValueError, folder, bare, "expected postgresql+psycopg://")
    assert "p@ssword" not in refused(ValueError, folder, "p@ssword", "expected postgresql+psycopg://")


def test_another_programs_database_is_refused_and_left_alone(postgresql, folder, shared_url):
    postgresql.run("CREATE TABLE items (name text)", schema_of(shared_url))
    refused(ValueError, folder, shared_url, "another program")
    tables = postgresql.run(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()", schema_of(shared_url)
    )
    assert tables == [("items",)]
    assert not folder.exists()


def test_a_newer_version_is_refused(postgresql, folder, shared_url):
    Database(folder, shared_url).close()
    postgresql.run("UPDATE gallery_version SET version = version + 1", schema_of(shared_url))
    refused(ValueError, folder, shared_url, f"version {len(STEPS) + 1}", f"up to {len(STEPS)} only")


def test_a_folder_belongs_to_one_gallery(postgresql, tmp_path, folder, shared_url):
    """Whatever is in the folder of another gallery would be swept away as pictures of no item."""
    Database(folder, shared_url).close()
    Database(folder, shared_url).close()
    refused(ValueError, folder, postgresql.new(), str(folder), "belongs to gallery", str(postgresql.port))
    Database(tmp_path / "sqlite").close()
    refused(ValueError, tmp_path / "sqlite", shared_url, "holds gallery.db but no gallery.id")
    with pytest.raises(ValueError, match=r"holds files but no gallery\.db"):
        Database(folder)
    (tmp_path / "cut short").mkdir()
    (tmp_path / "cut short" / "gallery.id.partial").write_text("12")
    Database(tmp_path / "cut short", shared_url).close()
    refused(OSError, tmp_path / "sqlite" / "gallery.db", shared_url, "not a folder")


def test_what_was_acknowledged_is_on_the_disk(postgresql, folder, shared_url):
    postgresql.run("ALTER ROLE reid SET synchronous_commit = off")
    postgresql.run("ALTER ROLE reid SET default_transaction_isolation = serializable")
    try:
        with Database(folder, shared_url) as database, database.transaction() as connection:
            assert connection.execute(text("SHOW synchronous_commit")).scalar() == "on"
            assert connection.execute(text("SHOW transaction_isolation")).scalar() == "read committed"
    finally:
        postgresql.run("ALTER ROLE reid RESET ALL")
    lax = f"{shared_url}%20-csynchronous_commit%3Doff"
    refused(ValueError, folder, lax, "synchronous_commit is off; expected local or on")


def test_reading_cannot_write(folder, shared_url):
    with Database(folder, shared_url) as database, pytest.raises(OSError, match="read-only"):
        database.read(text("DELETE FROM items RETURNING number"))


@pytest.mark.parametrize(
    "change", ["UPDATE operations SET actor = 'else'", "DELETE FROM operations", "TRUNCATE queries"]
)
def test_the_logs_cannot_be_rewritten(folder, shared_url, change):
    with Database(folder, shared_url) as database:
        with database.transaction() as connection:
            connection.execute(LOG, {"target": "first"})
        with pytest.raises(IntegrityError, match="append-only"), database.transaction() as connection:
            connection.execute(text(change))


def test_a_transaction_is_whole_or_nothing_and_readers_see_the_last_whole_one(folder, shared_url):
    with Database(folder, shared_url) as database:
        with database.transaction() as connection:
            connection.execute(LOG, {"target": "first"})
            assert database.read(TARGETS) == []
        with pytest.raises(KeyError), database.transaction() as connection:
            connection.execute(LOG, {"target": "second"})
            raise KeyError
        with pytest.raises(ValueError, match="'\\\\udcff' is not valid Unicode"), database.transaction() as connection:
            connection.execute(LOG, {"target": "third"})
            connection.execute(LOG, {"target": "\udcff"})
        assert database.read(TARGETS) == [("first",)]


def end_sessions(postgresql):
    """End all sessions of galleries, as when the server restarts or a network breaks."""
    ended = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'dcal-reid'"
    assert postgresql.run(ended)


def test_a_lost_connection_undoes_a_transaction_and_the_next_call_has_a_new_one(postgresql, folder, shared_url):
    with Database(folder, shared_url) as database:
        with pytest.raises(OSError, match="nothing was changed") as lost, database.transaction() as connection:
            connection.execute(LOG, {"target": "first"})
            end_sessions(postgresql)
            connection.execute(LOG, {"target": "second"})
        assert "\n" not in str(lost.value)
        assert database.read(TARGETS) == []
        with pytest.raises(OSError, match="may have been made or not") as lost, database.transaction() as connection:
            connection.execute(LOG, {"target": "third"})
            end_sessions(postgresql)
        assert "\n" not in str(lost.value)
        with pytest.raises(OSError, match="lost while pictures was held"), database.exclusive("pictures"):
            end_sessions(postgresql)
        with database.exclusive("pictures"), database.transaction() as connection:
            connection.execute(LOG, {"target": "fourth"})
        assert database.read(TARGETS) == [("fourth",)]


def test_a_server_that_is_away_is_one_clear_line_until_it_is_back(mortal_postgresql, folder):
    name = rf"^postgresql://reid@127\.0\.0\.1:{mortal_postgresql.port}/postgres: .*; nothing was changed$"
    with Database(folder, mortal_postgresql.new()) as database:
        store = Store(database)
        assert store.count(Filter()) == 0
        mortal_postgresql.kill()
        for ask in (lambda: store.count(Filter()), lambda: store.delete(["x"]), database.exclusive("x").__enter__):
            with pytest.raises(OSError, match=name) as away:
                ask()
            assert "\n" not in str(away.value)
        mortal_postgresql.start()
        assert store.count(Filter()) == 0
        assert store.delete(["x"]) == []
        with database.exclusive("x"):
            pass


def columns(inspector, table):
    """The columns of a table, and what makes rows unlike."""
    key = inspector.get_pk_constraint(table)["constrained_columns"]
    found = [(one["name"], one["nullable"] and one["name"] not in key) for one in inspector.get_columns(table)]
    return found, key, {tuple(one["column_names"]) for one in inspector.get_unique_constraints(table)}


@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_both_places_have_the_same_tables(postgresql, tmp_path, shared_url):
    Database(tmp_path / "sqlite").close()
    Database(tmp_path / "server", shared_url).close()
    engines = [create_engine(f"sqlite:///{tmp_path}/sqlite/gallery.db"), create_engine(shared_url)]
    try:
        file, server = (inspect(engine) for engine in engines)
        assert set(metadata.tables) == set(file.get_table_names()) - {"sqlite_sequence"}
        assert set(metadata.tables) == set(server.get_table_names()) - {"gallery_version"}
        for table in metadata.tables:
            assert columns(file, table) == columns(server, table), table
            foreign = [
                sorted((one["constrained_columns"], one["referred_table"]) for one in place.get_foreign_keys(table))
                for place in (file, server)
            ]
            assert foreign[0] == foreign[1]
            indexes = [
                sorted(
                    (one["column_names"], bool(one["unique"]))
                    for one in place.get_indexes(table)
                    if not one.get("duplicates_constraint") and None not in one["column_names"]  # of expressions
                )
                for place in (file, server)
            ]
            assert indexes[0] == indexes[1]
    finally:
        for engine in engines:
            engine.dispose()

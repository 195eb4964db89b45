"""Keys: who has which, and that their secrets are written nowhere."""

from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from service.records import MAX_NAME, MAX_RATE, Cause, NewKey, NotFound
from service.storage.database import Database
from service.storage.keys import Keys
from service.storage.store import Store
from tests.waiting import wait_until

READ = frozenset({"read"})
EVERYTHING = frozenset({"read", "write", "admin"})


@pytest.fixture
def keys(database):
    return Keys(database)


@pytest.mark.parametrize(
    ("asked", "granted"), [({"read"}, READ), ({"write"}, {"read", "write"}), ({"admin"}, EVERYTHING)]
)
def test_a_scope_includes_those_below_it(keys, asked, granted):
    key, secret = keys.add(NewKey("k", frozenset(asked)))
    assert key.scopes == granted == keys.find(secret).caller().scopes


def test_a_key_is_found_by_its_secret_alone(keys):
    first, one = keys.add(NewKey("same name", READ))
    second, other = keys.add(NewKey("same name", READ))
    assert (keys.find(one), keys.find(other)) == (first, second)
    assert first.key_id != second.key_id
    for wrong in ("", one[:-1], one + "x", one.upper(), f" {one}", first.key_id, "same name", "\ud800", "' OR 1=1 --"):
        assert keys.find(wrong) is None


def test_secrets_are_long_and_never_the_same(keys):
    secrets = {keys.add(NewKey("k", READ))[1] for _ in range(20)}
    assert len(secrets) == 20
    assert all(secret.startswith("reid_") and len(secret) == 48 for secret in secrets)  # 43 letters of base64: 256 bits


def test_a_revoked_key_is_worth_nothing_and_stays_listed(keys):
    kept, good = keys.add(NewKey("kept", READ))
    gone, bad = keys.add(NewKey("gone", READ))
    keys.revoke(gone.key_id)
    assert (keys.find(good), keys.find(bad)) == (kept, None)
    listed = keys.list()
    assert listed[0] == kept and listed[1].revoked_at >= gone.created_at
    assert replace(listed[1], revoked_at=None) == gone
    keys.revoke(gone.key_id)  # again
    assert keys.list() == listed
    with pytest.raises(NotFound, match="no key 'nothing'"):
        keys.revoke("nothing")


def test_keys_outlive_the_process(reopen):
    with reopen() as database:
        limited, secret = Keys(database).add(NewKey("k", READ, frozenset({"nörth", "it's\0"}), 7))
        gone, bad = Keys(database).add(NewKey("gone", READ))
        Keys(database).revoke(gone.key_id)
    with reopen() as database:
        keys = Keys(database)
        assert keys.find(secret) == limited == keys.list()[0]
        assert keys.find(bad) is None


def test_what_cannot_be_written_changes_nothing(keys, database):
    key, secret = keys.add(NewKey("k", READ))
    refuse = (
        "CREATE TRIGGER refuse BEFORE INSERT ON operations FOR EACH STATEMENT EXECUTE FUNCTION log_is_append_only('no')"
        if database.shared
        else "CREATE TRIGGER refuse BEFORE INSERT ON operations BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with database.transaction() as connection:
        connection.execute(text(refuse))
    with pytest.raises(IntegrityError, match="no"):
        keys.add(NewKey("other", READ))
    with pytest.raises(IntegrityError, match="no"):
        keys.revoke(key.key_id)
    assert keys.find(secret) == key
    assert keys.list() == [key]


def test_the_log_tells_who_made_and_revoked_a_key(keys, database):
    key, _ = keys.add(NewKey("gate", frozenset({"write"}), frozenset({"b", "a"}), 60), Cause("boss", "r1"))
    keys.revoke(key.key_id, Cause("boss", "r2"))
    keys.revoke(key.key_id, Cause("boss", "r3"))
    made, revoked = Store(database).operations()
    said = {"name": "gate", "scopes": ["read", "write"], "cameras": ["a", "b"], "requests_per_minute": 60}
    assert (made.kind, made.target, made.actor, made.request_id) == ("key.create", key.key_id, "boss", "r1")
    assert (made.before, made.after) == (None, said)
    assert (revoked.kind, revoked.target, revoked.actor, revoked.request_id) == (
        ("key.revoke", key.key_id, "boss", "r2")
    )
    assert (revoked.before, revoked.after) == (said, None)


def test_secrets_are_in_no_file(tmp_path):
    folder = tmp_path / "gallery"
    admin = "a-secret-of-the-settings-" + "x" * 20
    with Database(folder) as database:
        keys = Keys(database, admin_key=admin)
        secrets = [keys.add(NewKey("findable name", READ))[1], admin]
        keys.revoke(keys.list()[0].key_id)
        written = b"".join(path.read_bytes() for path in folder.iterdir())  # with what is not merged yet
    written += b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"findable name" in written
    for secret in secrets:
        assert secret.encode() not in written
        assert secret.removeprefix("reid_").encode() not in written


def test_a_key_made_or_revoked_elsewhere_holds_here_soon(reopen):
    with reopen() as here:
        if not here.shared:
            pytest.skip("one process alone")
        keys = Keys(here)
        with reopen() as there:
            key, secret = Keys(there).add(NewKey("k", READ))
            wait_until(lambda: keys.find(secret) == key)
            Keys(there).revoke(key.key_id)
            wait_until(lambda: keys.find(secret) is None)


def test_the_admin_key_of_the_settings_allows_everything_and_is_not_listed(database):
    keys = Keys(database, admin_key="s" * 32)
    caller = keys.find("s" * 32).caller()
    assert (caller.actor, caller.scopes, caller.cameras) == ("admin", EVERYTHING, None)
    assert keys.list() == []
    with pytest.raises(NotFound):
        keys.revoke("admin")
    assert Keys(database).find("s" * 32) is None


@pytest.mark.parametrize(
    "name", ["'; DROP TABLE keys; --", '"', "%", "../../etc", "<script>", "日本 ключ", "x" * MAX_NAME]
)
def test_names_are_nothing_but_names(keys, name):
    key, secret = keys.add(NewKey(name, READ, frozenset({name})))
    assert keys.list() == [key] == [keys.find(secret)]
    assert (key.name, key.cameras) == (name, {name})
    with pytest.raises(NotFound):
        keys.revoke(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", READ), "name '': expected 1 to 200"),
        (("x" * (MAX_NAME + 1), READ), "expected 1 to 200"),
        (("two\nlines", READ), r"name 'two\\nlines'"),
        (("\x1b[2J", READ), "printable"),
        (("half \ud800", READ), "printable"),
        (("k", frozenset()), r"scopes \[\]"),
        (("k", frozenset({"root"})), r"scopes \['root'\]: expected one or more of \['admin', 'read', 'write'\]"),
        (("k", READ, frozenset()), "cameras"),
        (("k", EVERYTHING, frozenset({"north"})), r"cameras \['north'\]: a key with scope 'admin'"),
        (("k", READ, None, 0), "requests_per_minute 0"),
        (("k", READ, None, MAX_RATE + 1), "requests_per_minute"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NewKey(*arguments)

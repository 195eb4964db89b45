"""The table of fields: that the records for the checker of types say the same, and that filters are read as written."""

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import get_type_hints

import pytest

from service.fields import FIELDS, SAID, Filter, Filters, NewlySaid, Said, facts, read_filter
from service.storage.tables import metadata

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def test_what_the_checker_of_types_sees_is_the_table():
    kinds = {"name": str | None, "time": datetime | None}
    expected = {field.name: kinds[field.kind] for field in FIELDS if field.kind != "attributes"}
    assert tuple(expected) == SAID
    assert get_type_hints(Said) == get_type_hints(NewlySaid) == expected
    assert [field.name for field in dataclasses.fields(Said)] == list(SAID)
    assert list(get_type_hints(Filters)) == [name for field in FIELDS for name in field.asked]


def test_every_field_has_a_column_of_its_own():
    for field in FIELDS:
        table, column = field.column.split(".")
        assert column in metadata.tables[table].c
    for chosen in ("column", "name"):
        assert len({getattr(field, chosen) for field in FIELDS}) == len(FIELDS)


def test_a_filter_is_read_as_it_is_spelled():
    chosen = Filter(
        cameras=["yard", "gate"], exclude_sites="shore", since=NOON, attributes={"coat": ["red"], "a.b": ["", "x"]}
    )
    spelled = {
        "cameras": ["gate", "yard"],
        "exclude_sites": ["shore"],
        "from": NOON,
        "attributes.coat": ["red"],
        "attributes.a.b": ["", "x"],
    }
    assert chosen.spelled() == spelled
    assert read_filter({**spelled, "labels": None}) == chosen != Filter(cameras=["gate"])
    assert Filter(labels=None, since=None) == Filter()


def test_no_item_passes_an_empty_list_and_all_pass_one_of_exclusions():
    assert [condition.excluded for condition in Filter(cameras=[], exclude_labels=[]).conditions()] == [False]
    assert list(Filter(attributes={}, exclude_attributes={"coat": []}).conditions()) == []


def test_a_filter_is_narrowed_to_the_cameras_of_a_key():
    both, mine = frozenset({"a", "b"}), Filter(cameras={"b", "c"}, sites={"x"})
    assert mine.narrowed_to(both) == Filter(cameras={"b"}, sites={"x"})
    assert Filter(exclude_cameras={"a"}).narrowed_to(both) == Filter(cameras=both, exclude_cameras={"a"})


def test_what_cannot_be_asked_is_named():
    with pytest.raises(TypeError, match="^no filter is called camera, wings; expected some of labels, exclude_labels,"):
        Filter(camera={"gate"}, wings={"two"})
    with pytest.raises(ValueError, match="time 2024-05-01T12:00:00 has no time zone; expected one such as"):
        list(Filter(until=NOON.replace(tzinfo=None)).conditions())
    with pytest.raises(ValueError, match="^attribute 'x*...x*': expected at most 200 characters$"):
        list(Filter(attributes={"coat": {"x" * 201}}).conditions())


def test_times_are_compared_in_microseconds_of_any_zone():
    here = timezone(timedelta(hours=5, minutes=30))
    [condition] = Filter(since=datetime(1970, 1, 1, 5, 30, 0, 7, tzinfo=here)).conditions()
    assert (condition.since, condition.until) == (7, None)


def test_an_engine_is_given_what_is_known_and_texts_that_are_not_too_long():
    known = {field.name: None for field in FIELDS} | {"camera": "gate", "captured_at": 7}
    written = json.dumps({"coat": "red", "age": 3, "note": "x" * 201, "whole": "y" * 200, "hat": ["red"]})
    assert facts((known | {"attributes": written}).values()) == {
        "camera": "gate",
        "captured_at": 7,
        "attributes": {"coat": "red", "whole": "y" * 200},
    }
    assert facts((known | {"attributes": '{"age": 3}'}).values()) == {"camera": "gate", "captured_at": 7}
    many = json.dumps({str(i): "a" for i in range(5000)})
    assert len(facts((known | {"attributes": many}).values())["attributes"]) == 4096

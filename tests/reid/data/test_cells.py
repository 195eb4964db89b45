"""What somebody said is no formula in a spreadsheet, and comes back as it was."""

import csv
from itertools import product

import pytest

from reid.data.cells import as_cell, from_cell
from reid.data.splitting import split_table
from reid.data.tables import AS_IT_IS, open_table

TEXTS = ["".join(letters) for size in range(4) for letters in product("'=-+@\t1a", repeat=size)]


def test_every_text_comes_back_and_none_is_a_formula():
    written = {text: as_cell(text) for text in TEXTS}
    assert {text: from_cell(cell) for text, cell in written.items()} == {text: text for text in TEXTS}
    begin = {cell for cell in written.values() if cell[:1] in ("=", "-", "+", "@", "\t")}
    assert begin == {"-1", "-11", "+1", "+11"}, "numbers alone begin like formulas"
    assert as_cell("=HYPERLINK(1)") == "'=HYPERLINK(1)"


@pytest.mark.parametrize("value", [None, -1.5, 3, "-1.5e-3", "2025-03-01", "{}", "pictures/a.webp"])
def test_numbers_and_all_else_stay(value):
    assert as_cell(value) is value


def test_a_table_is_read_as_it_was_meant_and_split_into_one_without_formulas(tmp_path):
    whose, table, split = ["=1+1", "'=1+1", "@c", "-d"], tmp_path / "photos.csv", tmp_path / "split.csv"
    with table.open("w", newline="") as file:
        written = csv.writer(file)
        written.writerow(("path", "identity", "camera"))
        written.writerows((f"{n}.jpg", as_cell(whose[n % 4]), f"c{n // 4 % 2}") for n in range(32))
    split_table(table, split, AS_IT_IS)
    for path in (table, split):
        assert {cells["identity"] for _, cells in open_table(path).rows()} == {*whose}
    assert {line.split(",")[1] for line in split.read_text().splitlines()[1:]} == {as_cell(one) for one in whose}

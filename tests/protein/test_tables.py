"""Tables as CSV, JSON and text."""

import csv
import io
import json
from pathlib import Path

import pytest
from reed_core.errors import InputError
from reed_protein.tables import Table, aligned_text, csv_text, json_text, write_table

ROWS = [('x, "y"', 1, 0.12345678, None), ("z", 20, float("nan"), None)]
TABLE = Table(("name", "n", "score", "seed"), ROWS, {"unit": "nats"})


def test_csv_reads_back() -> None:
    first, second = csv.DictReader(io.StringIO(csv_text(TABLE)))
    assert first == {"name": 'x, "y"', "n": "1", "score": "0.123457", "seed": ""}
    assert second == {"name": "z", "n": "20", "score": "", "seed": ""}


def test_json_reads_back_with_null_for_what_is_not_a_number() -> None:
    held = json.loads(json_text(TABLE))
    assert held["unit"] == "nats"
    assert held["rows"][0] == {"name": 'x, "y"', "n": 1, "score": 0.123457, "seed": None}
    assert held["rows"][1]["score"] is None


def test_text_is_aligned_and_leaves_out_empty_and_hidden_columns() -> None:
    lines = aligned_text(TABLE, hidden=("n",)).splitlines()
    assert [line.split()[-1] for line in lines] == ["score", "0.123457", "-"]
    assert len({len(line) for line in lines}) == 1
    assert "seed" not in lines[0]


def test_files_are_written_by_their_ending_or_not_at_all(tmp_path: Path) -> None:
    write_table(tmp_path / "a.CSV", TABLE)
    write_table(tmp_path / "a.json", TABLE)
    assert (tmp_path / "a.CSV").read_text() == csv_text(TABLE)
    assert (tmp_path / "a.json").read_text() == json_text(TABLE)
    with pytest.raises(InputError, match=r"\.csv or \.json"):
        write_table(tmp_path / "a.xlsx", TABLE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.CSV", "a.json"]

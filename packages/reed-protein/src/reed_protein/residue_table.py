"""Rules for single residues, read from JSON or CSV; every key is a residue, a range or a chain (`A52`, `A10-20`, `B`).

    omit   JSON {"A52": "CM", "B": "P"}                 CSV with columns residue,letters
    bias   JSON {"A52": {"A": -1, "P": 0.5}}            CSV with columns residue,letter,bias

Whether the residues are there is for the structure to say (`letter_rules`); rows of a CSV about one residue add up.
"""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reed_core.errors import InputError

from reed_protein.letter_rules import letters_of
from reed_protein.text_file import read_text


def read_omit(path: str | Path) -> dict[str, str]:
    """Letters never to be used, by residue.

    Raises:
        InputError: If the file cannot be read, or says something else.
    """
    text = read_text(Path(path), 'a table as {"A52": "CM"} (JSON) or residue,letters (CSV)')
    found: dict[str, str] = {}
    if _is_json(text):
        for where, letters in _object(path, text).items():
            if not isinstance(letters, str):
                raise InputError(f'{path}: {where} has {letters!r}; expected letters, as in {{"A52": "CM"}}')
            found[where] = letters_of(letters, f"{path}, {where}:")
        return found
    for row, where, letters in _rows(path, text, ("residue", "letters")):
        found[where] = found.get(where, "") + letters_of(letters, f"{path}, row {row}:")
    return found


def read_bias(path: str | Path) -> dict[str, dict[str, float]]:
    """Nats by letter, by residue.

    Raises:
        InputError: If the file cannot be read, or says something else.
    """
    text = read_text(Path(path), 'a table as {"A52": {"A": -1}} (JSON) or residue,letter,bias (CSV)')
    found: dict[str, dict[str, float]] = {}
    if _is_json(text):
        for where, pairs in _object(path, text).items():
            if not isinstance(pairs, dict):
                raise InputError(
                    f'{path}: {where} has {pairs!r}; expected nats by letter, as in {{"A52": {{"A": -1}}}}'
                )
            for letter, value in pairs.items():
                _add(found, f"{path}, {where}", where, letter, value)
        return found
    for row, where, letter, value in _rows(path, text, ("residue", "letter", "bias")):
        _add(found, f"{path}, row {row}", where, letter, value)
    return found


def _add(found: dict[str, dict[str, float]], place: str, where: str, letter: str, value: Any) -> None:
    name = letters_of(letter, f"{place}:")
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if len(name) != 1 or not math.isfinite(number):
        raise InputError(f"{place}: {letter} {value}; expected one letter and a finite number of nats")
    own = found.setdefault(where, {})
    own[name] = own.get(name, 0.0) + number


def _is_json(text: str) -> bool:
    return text.lstrip().startswith(("{", "["))


def _object(path: str | Path, text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{path} names {name} twice; join the two")
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{path} is not whole JSON ({error}); correct it") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} holds a list; expected an object keyed by residue, as in {{'A52': ...}}")
    return value


def _rows(path: str | Path, text: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of a CSV with these columns, each behind its number in the file."""
    reader = csv.reader(io.StringIO(text), skipinitialspace=True)
    rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(cell.strip() for cell in row)]
    head = [cell.lower() for cell in rows[0][1]]
    if sorted(head) != sorted(columns):
        raise InputError(f"{path} starts with '{','.join(rows[0][1])[:60]}'; expected the columns {','.join(columns)}")
    order = [head.index(column) for column in columns]
    for number, row in rows[1:]:
        if len(row) != len(columns):
            raise InputError(f"row {number} of {path} has {len(row)} columns; expected {','.join(columns)}")
    return [(number, *(row[at] for at in order)) for number, row in rows[1:]]

"""Damaged files: nothing but `InputError` comes out, and what was not touched keeps its number, letter and place.

Each mutant is a real file with one to four faults in it. REED_FUZZ sets how many are tried in all (default 240).
"""

import gzip
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from reed_core.errors import InputError
from reed_protein.structure import Structure, read_structure

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = ("2bjd_A.pdb", "example.cif", "5L33.pdb", "1A8O.pdb", "1qys.pdb", "3JQH.cif")
MUTANTS = int(os.environ.get("REED_FUZZ", "240")) // len(FILES)
BAD_VALUES = ("nan", "inf", "-1e9", "9999.000", "********", "", "0.000", "x", "1e400", "?", ".", "Z", "999999999999")
PDB_FIELDS = (
    (0, 6),
    (12, 16),
    (16, 17),
    (17, 20),
    (21, 22),
    (22, 26),
    (26, 27),
    (30, 38),
    (38, 46),
    (46, 54),
    (54, 60),
)
PDB_MARKS = (
    "MODEL        2",
    "ENDMDL",
    "END",
    "TER",
    "ATOM",
    "HETATM  junk",
    "REMARK   2",
    "\t",
    "ATOM  \x0c" + " " * 60,
)
CIF_MARKS = ("loop_", "data_other", "#", ";", "_atom_site.id", "'", "ATOM", "stop_", "save_x")
LETTERS = "AXzé \t'\"#;?.-09\x0c\x1c\x85"


@dataclass
class Mutant:
    """The lines of a file on their way to ruin, and the residues whose lines were touched."""

    lines: list[str]
    cif: bool
    columns: list[str]
    touched: set[str] = field(default_factory=set)

    def key(self, line: str) -> str:
        """The author id of an atom's residue as its line has it; empty for other lines."""
        if not line.startswith(("ATOM", "HETATM")):
            return ""
        if not self.cif:
            return line[21:22].strip() + line[22:27].replace(" ", "")
        values = dict(zip(self.columns, line.split(), strict=False))
        return "".join(values.get(name, "") for name in ("auth_asym_id", "auth_seq_id", "pdbx_PDB_ins_code")).rstrip(
            "?"
        )

    def put(self, at: int, *lines: str) -> None:
        """Replaces a line by others."""
        self.touched.update(map(self.key, (self.lines[at], *lines)))
        self.lines[at : at + 1] = lines

    def mutate(self, rng: np.random.Generator) -> None:
        """Adds one fault."""
        at = int(rng.choice([at for at, line in enumerate(self.lines) if self.key(line)] or [0]))
        other = int(rng.integers(len(self.lines)))
        line = self.lines[at]
        match rng.choice(["drop", "double", "swap", "letter", "field", "cut", "shift", "mark"]):
            case "drop":
                self.put(at)
            case "double":
                self.put(at, line, line)
            case "swap":
                second = self.lines[other]
                self.put(at, second)
                self.put(other, line)
            case "letter":
                place = int(rng.integers(len(line) + 1))
                self.put(at, line[:place] + rng.choice(list(LETTERS)) + line[place + 1 :])
            case "field":
                self.put(at, self.with_bad_field(line, rng))
            case "cut":
                self.touched.update(map(self.key, self.lines[other:]))
                self.lines[other:] = [self.lines[other][: rng.integers(len(self.lines[other]) + 1)]]
            case "shift":
                place = int(rng.integers(len(line) + 1))
                self.put(
                    at, line[:place] + " " + line[place:] if rng.random() < 0.5 else line[:place] + line[place + 1 :]
                )
            case "mark":
                self.touched.update(map(self.key, self.lines[at:]))
                self.put(at, rng.choice(CIF_MARKS if self.cif else PDB_MARKS), line)

    def with_bad_field(self, line: str, rng: np.random.Generator) -> str:
        """A line with one value replaced."""
        value = str(rng.choice(BAD_VALUES))
        if self.cif:
            values = line.split() or [""]
            values[rng.integers(len(values))] = value
            return " ".join(values)
        first, last = PDB_FIELDS[rng.integers(len(PDB_FIELDS))]
        return line[:first] + value[: last - first].rjust(last - first) + line[last:]


def as_cif(structure: Structure) -> str:
    """A backbone as mmCIF, for the runs without real data."""
    names = "group_PDB label_atom_id label_comp_id auth_asym_id auth_seq_id pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z"
    lines = ["data_x", "loop_", *(f"_atom_site.{name}" for name in names.split())]
    for index, letter in enumerate(structure.sequence):
        for atom, xyz in zip(("N", "CA", "C", "O"), structure.coords[index], strict=True):
            place = f"{structure.chain_ids[index]} {structure.residue_numbers[index]} ?"
            lines.append(
                f"ATOM {atom} {'MET' if letter == 'M' else 'ALA'} {place} {xyz[0]:.3f} {xyz[1]:.3f} {xyz[2]:.3f}"
            )
    return "\n".join([*lines, "#", ""])


@cache
def text_of(path: Path) -> str:
    return path.read_text()


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The text of a file to be damaged; real data is asked for only where it is needed."""

    def text(name: str) -> str:
        if name == "example.cif":
            return as_cif(read_structure(EXAMPLES / "2bjd_A.pdb"))
        if (EXAMPLES / name).exists():
            return text_of(EXAMPLES / name)
        return text_of(request.getfixturevalue("reed_data") / "protein" / "structures" / name)

    return text


def untouched(whole: Structure, mutant: Mutant, text: str) -> list[str]:
    """Ids of residues that must come through: plain ATOM records in the first model, no line of theirs touched."""
    hetero = {mutant.key(line) for line in text.split("\n") if line.startswith("HETATM")}
    return [name for name in whole.residue_ids if name not in mutant.touched | hetero]


def assert_kept(whole: Structure, damaged: Structure, names: list[str]) -> None:
    before = {name: at for at, name in enumerate(whole.residue_ids)}
    after = {name: at for at, name in enumerate(damaged.residue_ids)}
    assert set(names) <= after.keys()
    old, new = [before[name] for name in names], [after[name] for name in names]
    assert [whole.sequence[at] for at in old] == [damaged.sequence[at] for at in new]
    np.testing.assert_array_equal(whole.coords[old, :3], damaged.coords[new, :3])
    for chain in whole.chains:
        order = [after[name] for name in names if whole.chain_ids[before[name]] == chain]
        assert order == sorted(order)


@pytest.mark.parametrize("name", FILES)
def test_faults_are_refused_or_stay_where_they_are(name: str, start: Callable[[str], str], tmp_path: Path) -> None:
    text = start(name)
    path = tmp_path / name
    path.write_text(text)
    whole = read_structure(path)
    lines = text.split("\n")
    columns = [line.strip().removeprefix("_atom_site.") for line in lines if line.startswith("_atom_site.")]
    outcomes: Counter[str] = Counter()
    for seed in range(MUTANTS):
        rng = np.random.default_rng([seed, len(text)])
        mutant = Mutant(list(lines), name.endswith("cif"), columns)
        for _ in range(rng.integers(1, 5)):
            mutant.mutate(rng)
        path.write_text("\n".join(mutant.lines), encoding="utf-8")
        try:
            damaged = read_structure(path)
        except InputError as error:
            outcomes["refused"] += 1
            assert "\n" not in str(error), seed  # noqa: PT017
            assert 20 < len(str(error)) < 400, seed  # noqa: PT017
            continue
        outcomes["read"] += 1
        assert_kept(whole, damaged, untouched(whole, mutant, text))
    assert min(outcomes["refused"], outcomes["read"]) > 0.1 * MUTANTS


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FILES[:2])
def test_random_bytes_never_crash_the_reader(
    name: str, packed: bool, start: Callable[[str], str], tmp_path: Path
) -> None:
    raw = start(name).encode()[:6000]
    raw = gzip.compress(raw) if packed else raw
    path = tmp_path / f"{name}{'.gz' if packed else ''}"
    for seed in range(MUTANTS):
        rng = np.random.default_rng(seed)
        noisy = bytearray(raw)
        for at in rng.integers(len(noisy), size=rng.integers(1, 6)):
            noisy[at] = rng.integers(256)
        path.write_bytes(noisy[: rng.integers(len(noisy)) if seed % 5 == 0 else None])
        try:
            structure = read_structure(path)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert np.isfinite(structure.coords).all()

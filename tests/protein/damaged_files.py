"""Faults that structure files come with, put into whole ones; which residues they touch is kept account of."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from slow_reading import cif_columns, lines_of, residue_of

BAD_VALUES = (
    *("nan", "inf", "-inf", "1e400", "-1e9", "9999.000", "********", "", "0.000", "x", "?", ".", "Z", "999999999999"),
    *("0x1A", "1_0", "٣", "1,5", "A000", "--1", "+5", "1e2", "5.0", "'", "−4"),
)
NUMBERS = ("9999", "10000", "99999", "-999", "-9999", "A000", "2147483648", "99999999999999999999", "0", "007", "1.0")
PDB_FIELDS = (
    *((0, 6), (6, 11), (12, 16), (16, 17), (17, 20), (21, 22), (22, 26), (26, 27), (30, 38), (38, 46), (46, 54)),
    *((54, 60), (60, 66)),
)
PDB_MARKS = (
    *("MODEL        2", "MODEL        1", "MODEL", "ENDMDL", "END", "TER", "ATOM", "HETATM  junk", "REMARK   2", "\t"),
    "ATOM  \x0c" + " " * 60,
)
CIF_MARKS = ("loop_", "data_other", "#", ";", "; x\n;", "_atom_site.id", "'", "ATOM", "stop_", "save_x", "_other.x 1")
LETTERS = "AXzé \t'\"#;?.-09\x0c\x1c\x85"


@dataclass
class Mutant:
    """The lines of a file on their way to ruin, and the residues whose lines were touched."""

    lines: list[str]
    cif: bool
    columns: list[str]
    touched: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, text: str, cif: bool) -> "Mutant":
        """A whole file. Modified residues count as touched: where they belong hangs on TER records."""
        made = cls(lines_of(text), cif, cif_columns(text) if cif else [])
        made.touched.update(made.key(line) for line in made.lines if line.startswith("HETATM"))
        return made

    def text(self) -> str:
        return "\n".join(self.lines)

    def values(self, line: str) -> dict[str, str]:
        return dict(zip(self.columns, line.split(), strict=False))

    def key(self, line: str) -> str:
        """The author id of an atom's residue as its line has it; empty for other lines."""
        if not line.startswith(("ATOM", "HETATM")):
            return ""
        if not self.cif:
            return residue_of(line[21:22], line[22:26], line[26:27])
        row = self.values(line)
        parts = (row.get(name, "") for name in ("auth_asym_id", "auth_seq_id", "pdbx_PDB_ins_code"))
        return residue_of(*(part.strip("?.'\"") for part in parts))

    def put(self, at: int, *lines: str) -> None:
        """Replaces a line by others."""
        self.touched.update(map(self.key, (self.lines[at], *lines)))
        self.lines[at : at + 1] = lines

    def touch_from(self, at: int) -> None:
        self.touched.update(map(self.key, self.lines[at:]))

    def mutate(self, rng: np.random.Generator) -> None:
        """Adds one fault."""
        atoms = [at for at, line in enumerate(self.lines) if self.key(line)]
        if not atoms:
            return
        fault = FAULTS[int(rng.integers(len(FAULTS)))]
        self.faults.append(fault.__name__)
        fault(self, rng, int(rng.choice(atoms)))


Fault = Callable[[Mutant, np.random.Generator, int], None]


def drop(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    mutant.put(at)


def double(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    mutant.put(at, mutant.lines[at], mutant.lines[at])


def swap_lines(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    other = int(rng.integers(len(mutant.lines)))
    line, second = mutant.lines[at], mutant.lines[other]
    mutant.put(at, second)
    mutant.put(other, line)


def letter(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    line, place = mutant.lines[at], int(rng.integers(len(mutant.lines[at]) + 1))
    mutant.put(at, line[:place] + str(rng.choice(list(LETTERS))) + line[place + 1 :])


def shift(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    line, place = mutant.lines[at], int(rng.integers(len(mutant.lines[at]) + 1))
    mutant.put(at, line[:place] + " " + line[place:] if rng.random() < 0.5 else line[:place] + line[place + 1 :])


def cut_file(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    mutant.touch_from(at)
    mutant.lines[at:] = [mutant.lines[at][: rng.integers(len(mutant.lines[at]) + 1)]]


def cut_line(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    mutant.put(at, mutant.lines[at][: rng.integers(len(mutant.lines[at]) + 1)])


def mark(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    mutant.touch_from(at)
    mutant.put(at, str(rng.choice(CIF_MARKS if mutant.cif else PDB_MARKS)), mutant.lines[at])


def bad_value(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    _with_field(mutant, at, int(rng.integers(len(mutant.columns or PDB_FIELDS))), str(rng.choice(BAD_VALUES)))


def odd_number(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    """All lines of one residue get one odd number, or those from one on."""
    name, value = mutant.key(mutant.lines[at]), str(rng.choice(NUMBERS))
    column = mutant.columns.index("auth_seq_id") if mutant.cif and "auth_seq_id" in mutant.columns else 6
    for place in [place for place, line in enumerate(mutant.lines) if mutant.key(line) == name]:
        _with_field(mutant, place, column, value)


def insertion(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    """All lines of one residue get an insertion code."""
    name, value = mutant.key(mutant.lines[at]), str(rng.choice(["A", "B", "Z", "a", "1", "*"]))
    if mutant.cif and "pdbx_PDB_ins_code" not in mutant.columns:
        return
    column = mutant.columns.index("pdbx_PDB_ins_code") if mutant.cif else 7
    for place in [place for place, line in enumerate(mutant.lines) if mutant.key(line) == name]:
        _with_field(mutant, place, column, value)


def altloc(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    """A line and its copy become two locations, or the line alone gets a label."""
    if mutant.cif and "label_alt_id" not in mutant.columns:
        return
    column = mutant.columns.index("label_alt_id") if mutant.cif else 2
    if rng.random() < 0.5:
        mutant.put(at, mutant.lines[at], mutant.lines[at])
        _with_field(mutant, at + 1, column, "B")
    _with_field(mutant, at, column, "A")


def double_block(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    """A stretch of atoms, a residue's or a chain's, is there again, at once or at the end."""
    last = min(len(mutant.lines), at + int(rng.choice([3, 8, 30, 1000])))
    block = [line for line in mutant.lines[at:last] if mutant.key(line)]
    mutant.touched.update(map(mutant.key, block))
    ends = [place for place, line in enumerate(mutant.lines) if mutant.key(line)]
    place = last if rng.random() < 0.5 and last <= ends[-1] else ends[-1] + 1
    mutant.lines[place:place] = block


def swap_fields(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    line = mutant.lines[at]
    if mutant.cif:
        values = line.split()
        one, two = rng.integers(len(values), size=2)
        values[one], values[two] = values[two], values[one]
        mutant.put(at, " ".join(values))
        return
    one, two = sorted(rng.choice(len(PDB_FIELDS), size=2, replace=False))
    (a, b), (c, d) = PDB_FIELDS[one], PDB_FIELDS[two]
    first, second = line[a:b].strip(), line[c:d].strip()
    line = line[:a] + second[: b - a].rjust(b - a) + line[b:c] + first[: d - c].rjust(d - c) + line[d:]
    mutant.put(at, line)


def lose_column(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    """A column is gone: from the header and all rows, from the header alone, or, in PDB, blank in all lines."""
    mutant.touch_from(0)
    if not mutant.cif:
        first, last = PDB_FIELDS[rng.integers(len(PDB_FIELDS))]
        mutant.lines = [
            line[:first] + " " * (last - first) + line[last:] if mutant.key(line) else line for line in mutant.lines
        ]
        return
    name = str(rng.choice(mutant.columns)) if mutant.columns else ""
    column, both = mutant.columns.index(name) if name else 0, rng.random() < 0.6
    if both:
        rows = [line.split() if mutant.key(line) else None for line in mutant.lines]
        mutant.lines = [
            line if row is None else " ".join(row[:column] + row[column + 1 :])
            for line, row in zip(mutant.lines, rows, strict=True)
        ]
    mutant.lines = [line for line in mutant.lines if line.strip() != f"_atom_site.{name}"]
    mutant.columns = [other for other in mutant.columns if other != name]


def quote(mutant: Mutant, rng: np.random.Generator, at: int) -> None:
    """A value of a row is quoted, well or badly; blanks inside it, a text field, a comment."""
    if not mutant.cif:
        return
    values = mutant.lines[at].split()
    place = int(rng.integers(len(values)))
    forms = ("'{}'", '"{}"', "'{}", '{}"', "'{} '", "\n;{}\n;\n", '"{}\'"', "{}#", "{} #", "'a' '{}'", "''")
    values[place] = str(rng.choice(forms)).format(values[place])
    touched = mutant.key(mutant.lines[at])
    mutant.touch_from(at)
    mutant.touched.add(touched)
    mutant.lines[at] = " ".join(values)


def _with_field(mutant: Mutant, at: int, column: int, value: str) -> None:
    line = mutant.lines[at]
    if mutant.cif:
        values = line.split() or [""]
        values[min(column, len(values) - 1)] = value
        if not value.strip() or value in "'\"#;":
            mutant.touch_from(at)
        mutant.put(at, " ".join(values))
        return
    first, last = PDB_FIELDS[column]
    mutant.put(at, line[:first] + value[: last - first].rjust(last - first) + line[last:])


FAULTS: tuple[Fault, ...] = (
    *(drop, double, swap_lines, letter, shift, cut_file, cut_line, mark, bad_value, bad_value, odd_number, insertion),
    *(altloc, double_block, swap_fields, lose_column, quote),
)


def encode(text: str, rng: np.random.Generator) -> tuple[bytes, bool]:
    """The bytes of a file, and whether they still hold the text: odd line ends do, damaged bytes do not."""
    match int(rng.integers(16)):
        case 0:
            return text.replace("\n", "\r\n").encode(), True
        case 1:
            return text.replace("\n", "\r").encode(), True
        case 2:
            return b"\xef\xbb\xbf" + text.encode(), True
        case 3:
            return text.encode("latin-1", "replace"), False
        case 4:
            return text.encode(str(rng.choice(["utf-16", "utf-16-le", "utf-32"]))), False
        case 5:
            return gzip.compress(text.encode()), True
        case 6:
            packed = bytearray(gzip.compress(text.encode()))
            packed[rng.integers(2, len(packed))] ^= 1 << int(rng.integers(8))
            return bytes(packed), False
        case 7:
            packed = bytearray(gzip.compress(text.encode()))
            return bytes(packed[: rng.integers(2, len(packed))]), False
        case 8:
            return (b"", b" \n\n", b"\0" * 64)[rng.integers(3)] if rng.random() < 0.3 else b"\n\n" + text.encode(), True
        case _:
            return text.encode(), True

"""Damaged files: nothing but `InputError` comes out, in good time, and no residue gets a number that is not its own.

Each mutant is an excerpt of a real file with one to four faults. The witness is `slow_reading.py`, which shares no code
with the reader. What the reader returns is held against it twice: residues no fault touched are all there, in order,
with their own letter and atoms; and every residue that is there stands under that number in the damaged file.
REED_FUZZ sets how many mutants are tried in all (default 2000).
"""

import gzip
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from damaged_files import Mutant, encode
from reed_core.errors import InputError
from reed_protein.structure import Structure, read_structure
from slow_reading import Residues, as_cif, excerpt, places, slow_residues

EXAMPLES = Path(__file__).parents[2] / "examples"
# Source: the file, the chains and the residues (counted from 0 in each chain and model) of the excerpt.
SOURCES = {
    "alternate locations": ("2bjd_A.pdb", "A", range(0, 36)),
    "plain mmCIF": ("example.cif", "A", range(0, 30)),
    "insertion codes": ("1igy.cif", "BD", range(48, 66)),
    "modified residues": ("1A8O.pdb", "A", range(25, 66)),
    "modified residues, mmCIF": ("1A8O.cif", "A", range(30, 66)),
    "models": ("1LCD.pdb", "A", range(0, 16)),
    "negative numbers": ("5L33.pdb", "A", range(0, 34)),
    "blank chain id": ("1klu_A.pdb", " ", range(0, 36)),
}
MUTANTS = int(os.environ.get("REED_FUZZ", "2000")) // len(SOURCES)
LIMIT_SECONDS = 20  # a mutant is read in some milliseconds; a machine may be busy


class Hang(Exception):  # noqa: N818
    """A file was not read in time."""


@contextmanager
def limited() -> Iterator[None]:
    """Raises `Hang` inside the block when it takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hang(f"not read in {LIMIT_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read(path: Path, where: object) -> Structure | None:
    """The structure, or None where the file is refused in one line of fair length."""
    with limited():
        try:
            return read_structure(path)
        except InputError as error:
            assert "\n" not in str(error), where  # noqa: PT017
            assert 20 < len(str(error)) < 400 + len(str(path)), where  # noqa: PT017
            return None


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """The excerpt of a source; real data is asked for only where it is needed."""

    def text(source: str) -> str:
        name, chains, window = SOURCES[source]
        if name == "example.cif":
            whole = as_cif((EXAMPLES / "2bjd_A.pdb").read_text())
        elif (EXAMPLES / name).exists():
            whole = (EXAMPLES / name).read_text()
        else:
            whole = (request.getfixturevalue("reed_data") / "protein" / "structures" / name).read_text()
        return excerpt(whole, name.endswith("cif"), chains, window)

    return text


def file_name(source: str) -> str:
    return SOURCES[source][0]


def assert_kept(expected: Residues, damaged: Structure, untouched: list[str], where: object) -> None:
    """Untouched residues are there with their letter and atoms, in their order."""
    after = {name: at for at, name in enumerate(damaged.residue_ids)}
    assert set(untouched) <= after.keys(), where
    for name in untouched:
        letter, atoms = expected[name]
        assert damaged.sequence[after[name]] == letter, where
        for place, atom in enumerate(("N", "CA", "C", "O")):
            if atom in atoms:
                np.testing.assert_array_equal(damaged.coords[after[name], place], atoms[atom], str(where))
    for chain in dict.fromkeys(name[0] for name in untouched):
        order = [after[name] for name in untouched if name[0] == chain]
        assert order == sorted(order), where


def assert_backed(damaged: Structure, text: str, cif: bool, where: object) -> None:
    """N, CA and C of every residue stand in the file, under that chain, number and insertion code."""
    written = places(text, cif)
    for at, name in enumerate(damaged.residue_ids):
        for place, atom in enumerate(("N", "CA", "C")):
            assert (name, atom, *damaged.coords[at, place].tolist()) in written, (where, name, atom)


@pytest.mark.parametrize("source", SOURCES)
def test_the_slow_reading_and_the_reader_agree_on_whole_files(
    source: str, start: Callable[[str], str], tmp_path: Path
) -> None:
    text, path = start(source), tmp_path / file_name(source)
    path.write_text(text)
    structure, expected = read_structure(path), slow_residues(text, path.suffix == ".cif")
    assert len(structure) > 10
    assert list(structure.residue_ids) == list(expected)
    assert_kept(expected, structure, list(expected), source)
    assert_backed(structure, text, path.suffix == ".cif", source)


@pytest.mark.parametrize("source", SOURCES)
def test_faults_are_refused_or_stay_where_they_are(source: str, start: Callable[[str], str], tmp_path: Path) -> None:
    text, cif = start(source), file_name(source).endswith("cif")
    expected = slow_residues(text, cif)
    outcomes: Counter[str] = Counter()
    for seed in range(MUTANTS):
        rng = np.random.default_rng([seed, list(SOURCES).index(source)])
        mutant = Mutant.of(text, cif)
        for _ in range(rng.integers(1, 5)):
            mutant.mutate(rng)
        raw, readable = encode(mutant.text(), rng)
        path = tmp_path / (file_name(source) + ".gz" * raw.startswith(b"\x1f\x8b"))
        path.write_bytes(raw)
        where = (source, seed, mutant.faults)
        structure = read(path, where)
        path.unlink()
        outcomes["refused" if structure is None else "read"] += 1
        if structure is not None and readable:
            assert_kept(expected, structure, [name for name in expected if name not in mutant.touched], where)
            assert_backed(structure, mutant.text(), cif, where)
    assert min(outcomes["refused"], outcomes["read"]) > 0.1 * MUTANTS


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("source", list(SOURCES)[:2])
def test_random_bytes_never_crash_the_reader(
    source: str, packed: bool, start: Callable[[str], str], tmp_path: Path
) -> None:
    raw = start(source).encode()[:6000]
    raw = gzip.compress(raw) if packed else raw
    path = tmp_path / f"{file_name(source)}{'.gz' if packed else ''}"
    for seed in range(MUTANTS // 2):
        rng = np.random.default_rng(seed)
        noisy = bytearray(raw)
        for at in rng.integers(len(noisy), size=rng.integers(1, 6)):
            noisy[at] = rng.integers(256)
        path.write_bytes(noisy[: rng.integers(len(noisy)) if seed % 5 == 0 else None])
        structure = read(path, seed)
        assert structure is None or np.isfinite(structure.coords).all()

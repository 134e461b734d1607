"""A thousand broken files, and molecules that are seldom met: an answer for each, never a traceback, never a hang."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from generation_cases import tiny
from molecule_cases import molecule, single_atom
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from reed_core.errors import InputError
from reed_molecule.build import Failure
from reed_molecule.completion import complete
from reed_molecule.fragment import fragment_of, read_fragment
from reed_molecule.generate import Generator, Request, Sizes
from reed_molecule.generated import judged
from reed_molecule.metrics.report import evaluate
from reed_molecule.molecule import Molecule
from reed_molecule.readers import open_source
from reed_molecule.readers.records import read_records
from reed_molecule.vocabulary import DRUGS
from reed_molecule.workers import Dropped, Pool
from reed_molecule.writers.sdf import record as sdf_record
from reed_molecule.writers.xyz import write_xyz

WHOLE = ("CO", "C#N", "c1cc[nH]c1", "CC(=O)[O-]", "C[C@H](O)F", "C1CC1")
JUNK = ("NaN", "inf", "-1", "999999999", "0x1F", "*", "M  END", "$$$$", "Xx", "\x00", "é", "1e400", "", " " * 300, "C")


def broken(text: str, chance: random.Random) -> str:
    """One to four things wrong with a text."""
    for _ in range(chance.randint(1, 4)):
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        match chance.randrange(7):
            case 0:
                text = text[: chance.randrange(len(text) + 1)]
            case 1:
                del lines[at]
                text = "\n".join(lines)
            case 2:
                lines.insert(at, lines[chance.randrange(len(lines))])
                text = "\n".join(lines)
            case 3:
                words = lines[at].split(" ")
                words[chance.randrange(len(words))] = chance.choice(JUNK)
                lines[at] = " ".join(words)
                text = "\n".join(lines)
            case 4:
                place = chance.randrange(len(text) + 1)
                text = text[:place] + chance.choice(JUNK) + text[place:]
            case 5:
                place = chance.randrange(len(text) + 1)
                text = text[:place] + chr(chance.randrange(1, 256)) + text[place + 1 :]
            case _:
                lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
                text = "\n".join(lines)
    return text


def outcome(attempt: object) -> str:
    """What an attempt came to: an answer, or a message of one line."""
    try:
        attempt()  # type: ignore[operator]
    except InputError as error:
        return "refused" if str(error).strip() else "refused without a word"
    return "answered"


def test_broken_sdf_files(tmp_path: Path) -> None:
    chance, seen = random.Random(0), Counter[str]()
    good = [sdf_record(molecule(smiles), {"seed": 1}) for smiles in WHOLE]
    path = tmp_path / "some.sdf"
    for _ in range(400):
        path.write_text(broken(chance.choice(good), chance), encoding="utf-8", errors="surrogateescape")
        seen[outcome(lambda: evaluate(read_records(path), with_strain=False))] += 1
        source = open_source(path)
        for job in source.jobs:
            seen[outcome(lambda job=job, source=source: source.parse(job))] += 1
        seen[outcome(lambda: read_fragment(path, chance.choice([None, "1", "1-3"]), chance.choice([None, "1"])))] += 1
    assert set(seen) == {"refused", "answered"}
    assert seen["refused"] > 100
    assert seen["answered"] > 100


def test_broken_xyz_and_smiles_files(tmp_path: Path) -> None:
    """Bonds are perceived in a process with a time limit, so the records of many files are read by one pool."""
    chance, seen = random.Random(1), Counter[str]()
    frames = []
    for smiles in WHOLE[:3]:
        write_xyz(tmp_path / "one.xyz", [molecule(smiles)])
        frames.append((tmp_path / "one.xyz").read_text())
    for suffix, good, count in ((".xyz", frames, 300), (".smi", [f"{one} name\n" for one in WHOLE], 300)):
        jobs = []
        for _ in range(count):
            path = tmp_path / f"some{suffix}"
            path.write_text(broken(chance.choice(good), chance), encoding="utf-8", errors="surrogateescape")
            try:
                source = open_source(path)
            except InputError:
                seen[f"{suffix} refused"] += 1
                continue
            jobs += source.jobs[:3]
            parse = source.parse
        with Pool(parse, 1, 10.0) as pool:
            for answer in pool.map(jobs):
                seen[f"{suffix} dropped" if isinstance(answer, Dropped) else f"{suffix} answered"] += 1
                assert isinstance(answer, Dropped | Molecule)
    counts = [seen[f"{suffix} {what}"] for suffix in (".xyz", ".smi") for what in ("dropped", "answered")]
    assert seen[".xyz refused"] > 20
    assert min(counts) > 10, seen


def embedded(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=3, useRandomCoords=True) == 0
    return mol


def test_seldom_molecules_are_answered(tmp_path: Path) -> None:
    path = tmp_path / "some.sdf"
    seldom = {
        "radical": "[CH3]", "salt": "CC(=O)[O-].[Na+]", "metal": "[Fe]", "isotope": "[2H]C([2H])O", "long": "C" * 66,
    }  # fmt: skip
    path.write_text("".join(f"{Chem.MolToMolBlock(embedded(smiles))}$$$$\n" for smiles in seldom.values()))
    items = dict(zip(seldom, read_records(path), strict=True))
    assert all(isinstance(item, Molecule) for item in items.values())
    seen = {name: judged(0, item) for name, item in items.items()}
    assert all(one.valid for one in seen.values())
    assert not seen["radical"].closed
    assert not seen["salt"].connected
    assert (seen["long"].stable, seen["long"].connected) == (True, True)
    assert len(items["long"]) == 200  # type: ignore[arg-type]
    assert seen["isotope"].identity == "CO"
    table = evaluate(list(items.values()))
    assert table.validity.valid == 5
    reasons = {}
    source = open_source(path)
    for name, job in zip(seldom, source.jobs, strict=True):
        try:
            reasons[name] = str(len(source.parse(job)))
        except InputError as error:
            reasons[name] = str(error).split(":")[0]
    assert reasons["radical"] == "radical"
    assert reasons["salt"] == "several fragments"
    assert reasons["isotope"] == "6"
    assert reasons["long"] == "200"


def test_seldom_fragments_are_answered() -> None:
    generator = Generator(tiny(vocabulary=DRUGS))
    long = fragment_of(embedded("C" * 66), list(range(199)), "a test")
    drawn = complete(generator, long, Request(1, steps=1), add=Sizes({2: 1}))
    assert isinstance(drawn.samples[0].item, Molecule)
    assert np.array_equal(drawn.samples[0].item.positions[:199], long.kept.positions)
    one = fragment_of(embedded("C"), [0], "a test")
    assert len(complete(generator, one, Request(2, steps=2), add=Sizes({4: 1})).samples) == 2
    salt = fragment_of(embedded("CC(=O)O.CC(=O)O"), [0, 1, 4, 5], "a test")
    assert salt.pieces == 2
    metal = fragment_of(embedded("C[Hg]C"), [0, 1], "a test")
    with pytest.raises(InputError, match="atomic number 80"):
        complete(generator, metal, Request(1, steps=1), add=Sizes({4: 1}))
    lone = judged(0, single_atom(2))
    assert lone.valid
    assert not isinstance(lone.item, Failure)
    assert len(generator.draw(Request(2, steps=1, sizes=Sizes({1: 1}))).samples) == 2

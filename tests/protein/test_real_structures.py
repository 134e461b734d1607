"""The 43 real files, from file to design: each is designed, or refused with the one sentence that says why.

`test_structure_data` says what each file is read as; this table says what becomes of it and why it is in the set.
"""

import math
from pathlib import Path

import pytest
from reed_core.errors import InputError
from reed_protein.design import Designer, load
from reed_protein.residues import AMINO_ACIDS
from reed_protein.structure import Structure, read_structure

# File: residues designed, and what could have stood in the way.
DESIGNED: dict[str, tuple[int, str]] = {
    "1A8O.cif": (70, "selenomethionines, waters"),
    "1A8O.pdb": (70, "the same entry as PDB"),
    "1BC8.pdb": (93, "a protein on DNA, with zinc: the model sees the protein"),
    "1LCD.pdb": (51, "three NMR models and DNA: the first model's protein"),
    "1YCR.pdb": (98, "a protein and a bound peptide"),
    "1e6e_A.pdb": (457, "FAD"),
    "1f8i_A.pdb": (427, "ligands, magnesium"),
    "1hmp_A.pdb": (423, "a dimer written as two models, a chain break"),
    "1ib1_E.pdb": (178, "a chain break, ligands"),
    "1igy.cif": (1294, "an antibody of four chains: insertion codes, sugars, zero occupancies"),
    "1klu_A.pdb": (238, "a blank chain id"),
    "1l2y.cif": (20, "38 NMR models of a miniprotein"),
    "1lqm_E.pdb": (224, "a plain chain"),
    "1oyv_A.pdb": (115, "a plain chain"),
    "1qys.pdb": (92, "a de novo protein, a selenomethionine"),
    "1sbb_B.pdb": (239, "zero occupancies"),
    "1t68_X.pdb": (180, "haem, numbers from 0"),
    "1udi_A.pdb": (228, "a blank chain id"),
    "1wq5_B.pdb": (519, "four chain breaks, numbers from 1000 in one chain"),
    "2BEG.pdb": (130, "a fibril of five equal chains"),
    "2XHE.cif": (786, "a complex with a residue of one atom and three breaks"),
    "2b24_C.pdb": (440, "a plain chain"),
    "2bjd_A.pdb": (90, "alternate locations, cadmium"),
    "2e39_A.pdb": (336, "sugars, calcium, cyanide, 387 waters"),
    "3HTN.pdb": (425, "three chains, alternate locations, selenomethionines, iron"),
    "3JQH.cif": (23, "a short helix, alternate locations"),
    "3eok_A.pdb": (287, "a dimer with haems written as two models"),
    "3kvf_A.pdb": (298, "two proteins and the linker between them"),
    "4CUP.cif": (115, "numbers from 1856, an alternate location"),
    "4GYT.pdb": (354, "a homodimer"),
    "5L33.pdb": (106, "negative numbers"),
    "5cff_B.pdb": (87, "a break between consecutive numbers"),
    "5wk3_A.pdb": (67, "a short chain"),
    "6MRR.pdb": (68, "a de novo protein"),
    "6cf8_A.pdb": (510, "a break, sulphates"),
    "6kbr_C.pdb": (55, "every atom of zero occupancy"),
    "7CFN.cif": (1031, "a receptor complex of five chains with lipids"),
    "disordered.pdb": (6, "a fragment of six residues"),
    "insulin_target.pdb": (150, "a target as design tools write it"),
}
# File: the sentence.
REFUSED = {
    # Faults put in on purpose: CA of one residue is there twice, at two places.
    "a_structure.pdb": "atom CA of residue A1 is given twice; "
    "give each chain its own id, or keep one model in the file",
    # One residue, in two alternate locations.
    "altloc.cif": "altloc has 1 protein residue, 1 of them (A22) with N, CA and C; this model needs 2 or more: "
    "give a larger or more complete structure",
    "d256ba_.ent": "d256ba_ has no atoms, only a header; give a file with a model of a protein in it",
    # One residue, four atoms.
    "occupancy.pdb": "occupancy has 1 protein residue, 1 of them (A152) with N, CA and C; this model needs 2 or more: "
    "give a larger or more complete structure",
}
CLOSE_TO_NATIVE = 100  # from this many residues on, two steps recover far more than chance, 0.06


@pytest.fixture(scope="module")
def folder(reed_data: Path) -> Path:
    return reed_data / "protein" / "structures"


@pytest.fixture(scope="module")
def designer() -> Designer:
    return load()


def test_the_table_has_every_file(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == DESIGNED.keys() | REFUSED.keys()
    assert len(DESIGNED) + len(REFUSED) == 43


def native_share(structure: Structure, sequence: str) -> float:
    known = [(a, b) for a, b in zip(structure.sequence, sequence, strict=True) if a in AMINO_ACIDS]
    return sum(a == b for a, b in known) / len(known)


@pytest.mark.parametrize("name", DESIGNED)
def test_designs(name: str, folder: Path, designer: Designer) -> None:
    residues, _ = DESIGNED[name]
    structure = read_structure(folder / name)
    (design,) = designer.design(structure, steps=2)
    assert len(design.sequence) == len(structure) == residues
    assert set(design.sequence) <= set(AMINO_ACIDS)
    assert 0.0 < design.score < math.log(20)
    assert design.recovery == pytest.approx(native_share(structure, design.sequence), abs=1e-6)
    assert design.recovery > 0.15 or residues < CLOSE_TO_NATIVE


@pytest.mark.parametrize("name", REFUSED)
def test_is_refused_with_this_sentence(name: str, folder: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_structure(folder / name)
    assert str(caught.value) == REFUSED[name]

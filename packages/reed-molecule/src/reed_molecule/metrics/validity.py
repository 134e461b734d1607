"""Validity, connectedness, uniqueness and novelty of generated molecules, each a count with its denominator named.

    valid      RDKit sanitises it                                        of those drawn
    closed     valid, and no atom carries an unpaired electron           of those drawn
    connected  valid, and one fragment                                   of those valid
    unique     different SMILES among the valid and connected ones       of those valid and connected
    novel      unique SMILES that are not in a reference set             of those unique

A missing bond leaves a radical, which RDKit accepts: so "valid", as the field reports it, is weaker than "closed".
SMILES are canonical, with explicit hydrogens folded in; whether they tell stereoisomers apart is said in the result,
and must be the same for the reference.
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass

from rdkit import Chem, rdBase

from reed_molecule.build import Failure
from reed_molecule.molecule import canonical_smiles


@dataclass(frozen=True)
class Validity:
    """Counts; the fractions name their denominators. A fraction of nothing is 0.

    Attributes:
        drawn: Everything generated.
        valid: Sanitised by RDKit.
        closed: Valid without unpaired electrons.
        connected: Valid and one fragment.
        unique: Different SMILES among the valid and connected.
        novel: Of those, absent from the reference; None where none was given.
        stereo: Whether the SMILES tell stereoisomers apart.
    """

    drawn: int
    valid: int
    closed: int
    connected: int
    unique: int
    novel: int | None
    stereo: bool

    @property
    def valid_fraction(self) -> float:
        """Valid of drawn."""
        return _share(self.valid, self.drawn)

    @property
    def closed_fraction(self) -> float:
        """Valid and without unpaired electrons, of drawn."""
        return _share(self.closed, self.drawn)

    @property
    def connected_fraction(self) -> float:
        """Connected of valid."""
        return _share(self.connected, self.valid)

    @property
    def unique_fraction(self) -> float:
        """Unique of valid and connected."""
        return _share(self.unique, self.connected)

    @property
    def novel_fraction(self) -> float | None:
        """Novel of unique."""
        return None if self.novel is None else _share(self.novel, self.unique)


def validity(
    outcomes: Sequence[Chem.Mol | Failure], *, reference: Container[str] | None = None, stereo: bool = False
) -> Validity:
    """Counts valid, connected, unique and novel molecules.

    Args:
        outcomes: From `reed_molecule.build.all_rdkit`.
        reference: SMILES of known molecules as `identity` or `identity_of_smiles` writes them with the same `stereo`.
        stereo: Whether stereoisomers are different molecules.
    """
    mols = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
    whole = [mol for mol in mols if is_connected(mol)]
    known = {identity(mol, stereo=stereo) for mol in whole}
    return Validity(
        drawn=len(outcomes),
        valid=len(mols),
        closed=sum(is_closed(mol) for mol in mols),
        connected=len(whole),
        unique=len(known),
        novel=None if reference is None else sum(smiles not in reference for smiles in known),
        stereo=stereo,
    )


def is_connected(mol: Chem.Mol) -> bool:
    """Whether it is one fragment."""
    return len(Chem.GetMolFrags(mol)) == 1


def is_closed(mol: Chem.Mol) -> bool:
    """Whether no atom has an unpaired electron."""
    return not any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms())


def identity(mol: Chem.Mol, *, stereo: bool = False) -> str:
    """The SMILES that stands for a molecule; canonical after one reading of itself.

    RDKit's canonical SMILES can change once when it is read and written again, so both sides of a comparison are
    read and written. Where RDKit cannot read its own SMILES, that SMILES stands.
    """
    smiles = canonical_smiles(mol, stereo=stereo)
    return identity_of_smiles(smiles, stereo=stereo) or smiles


def identity_of_smiles(smiles: str, *, stereo: bool = False) -> str | None:
    """The SMILES that stands for a molecule given as SMILES; None if RDKit cannot read it."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    return None if mol is None else canonical_smiles(mol, stereo=stereo)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

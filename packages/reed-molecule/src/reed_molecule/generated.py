"""What became of each sample: its molecule, and what is true of it; and the summary of many, as printed.

The summary counts the valid of those drawn (RDKit sanitises them), the connected of those valid (one fragment), the
unique of those connected (different SMILES without stereo) and the novel of those unique (not trained on).
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Literal

from rdkit import Chem
from reed_core.errors import InputError

from reed_molecule.build import Failure, rdkit_of
from reed_molecule.metrics.stability import Convention, stable_atoms
from reed_molecule.metrics.validity import identity, is_closed, is_connected
from reed_molecule.molecule import Molecule, canonical_smiles
from reed_molecule.writers.sdf import Tags

Only = Literal["any", "valid", "connected", "stable", "novel"]
ONLY: tuple[Only, ...] = ("any", "valid", "connected", "stable", "novel")


@dataclass(frozen=True)
class Generated:
    """One sample.

    Attributes:
        number: Its number; its random numbers are keyed by the seed and this.
        item: Its atoms and bonds, or why there are none.
        mol: The RDKit molecule, or why there is none.
        stable: Every atom has an allowed valence by its bonds (corrected convention).
        stable_by_distance: The same by distances (EDM table).
        identity: Canonical SMILES without stereo; empty if not valid.
        novel: Not trained on; None if not valid, or where the training molecules are not known.
    """

    number: int
    item: Molecule | Failure
    mol: Chem.Mol | Failure
    stable: bool
    stable_by_distance: bool
    identity: str
    novel: bool | None

    @property
    def valid(self) -> bool:
        """RDKit sanitises it."""
        return not isinstance(self.mol, Failure)

    @property
    def connected(self) -> bool:
        """Valid and one fragment."""
        return not isinstance(self.mol, Failure) and is_connected(self.mol)

    @property
    def closed(self) -> bool:
        """Valid and without unpaired electrons."""
        return not isinstance(self.mol, Failure) and is_closed(self.mol)

    def passes(self, only: Only) -> bool:
        """Whether it is of this kind; each kind but `any` includes the ones before it."""
        return {
            "any": True,
            "valid": self.valid,
            "connected": self.connected,
            "stable": self.connected and self.closed and self.stable,
            "novel": self.connected and self.closed and self.stable and self.novel is not False,
        }[only]

    def tags(self) -> dict[str, str | int | float | bool]:
        """What an SDF record says of it."""
        said: dict[str, str | int | float | bool] = {
            "number": self.number,
            "valid": self.valid,
            "connected": self.connected,
            "no_radical": self.closed,
            "stable": self.stable,
            "stable_by_distance": self.stable_by_distance,
        }
        if isinstance(self.mol, Failure):
            said["problem"] = self.mol.kind.value
        else:
            said["smiles"] = canonical_smiles(self.mol)
            if self.novel is not None:
                said["novel"] = self.novel
        return said


def judged(number: int, item: Molecule | Failure, known: Container[str] | None = None) -> Generated:
    """Looks at one sample.

    Args:
        number: Its number.
        item: What was built of it.
        known: The molecules trained on, by canonical SMILES without stereo.
    """
    if isinstance(item, Failure):
        return Generated(number, item, item, stable=False, stable_by_distance=False, identity="", novel=None)
    mol = rdkit_of(item)
    name = "" if isinstance(mol, Failure) else identity(mol)
    return Generated(
        number=number,
        item=item,
        mol=mol,
        stable=bool(stable_atoms(item, Convention.BONDS).all()),
        stable_by_distance=bool(stable_atoms(item, Convention.DISTANCES).all()),
        identity=name,
        novel=None if known is None or not name else name not in known,
    )


@dataclass(frozen=True)
class Summary:
    """Counts of a set of samples; `novel` is None where the training molecules are not known."""

    drawn: int
    valid: int
    connected: int
    unique: int
    novel: int | None
    stable: int
    stable_by_distance: int

    @classmethod
    def of(cls, samples: Sequence[Generated]) -> "Summary":
        """Counts samples."""
        whole = [sample for sample in samples if sample.connected]
        names = {sample.identity: sample.novel for sample in whole}
        told = all(novel is not None for novel in names.values()) and bool(names)
        return cls(
            drawn=len(samples),
            valid=sum(sample.valid for sample in samples),
            connected=len(whole),
            unique=len(names),
            novel=sum(bool(novel) for novel in names.values()) if told else None,
            stable=sum(sample.stable for sample in samples),
            stable_by_distance=sum(sample.stable_by_distance for sample in samples),
        )

    def lines(self) -> list[str]:
        """The counts with their denominators, one a line."""
        rows = [
            ("drawn", self.drawn, None, ""),
            ("valid", self.valid, self.drawn, "of drawn"),
            ("connected", self.connected, self.valid, "of valid"),
            ("unique", self.unique, self.connected, "of connected, without stereo"),
            ("novel", self.novel, self.unique, "of unique, against the molecules trained on"),
            ("stable by bonds", self.stable, self.drawn, "of drawn, corrected convention"),
            ("stable by distances", self.stable_by_distance, self.drawn, "of drawn, EDM table"),
        ]
        out = []
        for name, count, whole, said in rows:
            shown = "-" if count is None else str(count)
            share = f"{100 * count / whole:6.1f} % {said}" if count is not None and whole else ""
            out.append(f"{name:<20}{shown:>7}  {share}".rstrip())
        return out


def checked_only(text: str) -> Only:
    """One of `ONLY`.

    Raises:
        InputError: If it is another word.
    """
    for only in ONLY:
        if text == only:
            return only
    raise InputError(f"--only {text}: expected one of {', '.join(ONLY)}")


def named_tags(sample: Generated, more: Tags) -> Tags:
    """The tags of a record: what was asked for, then what came of it."""
    return {**more, **sample.tags()}

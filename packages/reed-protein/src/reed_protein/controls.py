"""What a person asks of a design (`Controls`), and what it comes to on one structure (`Plan`). Imports no torch.

A `Controls` is checked where it is made, as far as that is possible without a structure; `Controls.plan` checks the
rest: every residue named must be there, and no two wishes may contradict each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32
from reed_core.errors import InputError

from reed_protein.allowance import Allowance
from reed_protein.composition import limits, read_limits
from reed_protein.known_sequence import fitted
from reed_protein.letter_rules import letter_bias, residue_bias
from reed_protein.residues import AMINO_ACIDS, UNKNOWN
from reed_protein.selection import designed_residues
from reed_protein.sites import Sites, settle
from reed_protein.structure import Structure
from reed_protein.ties import read_ties

_FINITE = float("inf")


def read_temperatures(text: str) -> tuple[float, ...]:
    """Temperatures such as "0.1" or "0.1,0.3".

    Raises:
        InputError: If a part is no number.
    """
    try:
        return tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        raise InputError(f"temperature is {text}; expected numbers, as in 0.1 or 0.1,0.3") from None


@dataclass(frozen=True, eq=False)
class Controls:
    """What to design, and how. Residues are named by author ids: `A52`, `H100A`, ranges `B1-20`, chains `B`.

    Attributes:
        num: Number of sequences at each temperature.
        temperature: Divides the logits; 0 takes the most probable letter. Several are designed with in turn.
        steps: Largest number of decoder evaluations of each sequence.
        seed: Design i depends on (seed, i) alone, whatever `num` (with `diverse` also on designs 1 to i - 1).
        order: "random" (exact samples of the model) or "confidence" (most certain residues first).
        design: Residues to design, as "A10-20,H100A"; all of them if neither this nor the next three are given.
        fix: Residues to keep; all others are designed.
        designed: Residues to design as a mask, [L].
        sequence: Letters to keep, X where to design (`known_sequence`).
        omit: Letters never to be used, as "CM".
        bias: Nats added to logits: "A:-1,P:0.5", or an array [20] or [L, 20], in which -inf forbids a letter.
        residue_omit: Letters never to be used at a residue, range or chain: {"A52": "CM"}.
        residue_bias: Nats added at a residue, range or chain: {"A52": {"P": 0.5}}.
        tie: Ties, each as "A1-10,B1-10" or "A1:1.0,B1:0.5" (`ties`).
        symmetry: Groups of equal chains, each as "A,B,C".
        at_most: Most frequent use of letters among designed residues: "K:10%,W:1".
        diverse: Nats taken from a letter at a residue, times the share of earlier designs that have it there.
    """

    num: int = 1
    temperature: float | Sequence[float] = 0.1
    steps: int = 20
    seed: int = 0
    order: Literal["random", "confidence"] = "random"
    design: str | None = None
    fix: str | None = None
    designed: Sequence[bool] | np.ndarray | None = None
    sequence: str | None = None
    omit: str = ""
    bias: str | np.ndarray | None = None
    residue_omit: Mapping[str, str] = field(default_factory=dict)
    residue_bias: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tie: Sequence[str] = ()
    symmetry: Sequence[str] = ()
    at_most: str = ""
    diverse: float = 0.0

    def __post_init__(self) -> None:
        for name, value, least in (
            ("num", self.num, 1),
            ("steps", self.steps, 1),
            ("seed", self.seed, 0),
            ("diverse", self.diverse, 0),
            *(("temperature", value, 0) for value in self.temperatures),
        ):
            if not least <= value < _FINITE:
                raise InputError(f"{name} is {value}; expected {f'at least {least}' if least else '0 or more'}")
        if not self.temperatures or len(set(self.temperatures)) < len(self.temperatures):
            raise InputError(f"temperature is {self.temperature}; expected one number or several different ones")
        if self.order not in ("random", "confidence"):
            raise InputError(f"order '{self.order}' is unknown; expected random or confidence")
        if isinstance(self.tie, str) or isinstance(self.symmetry, str):
            raise InputError('tie and symmetry are lists of texts, as in ["A1-10,B1-10"]')
        given = [name for name in ("design", "fix", "designed", "sequence") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} were both given; use one of them to say what changes")
        read_limits(self.at_most)
        self._letters()

    @property
    def temperatures(self) -> tuple[float, ...]:
        """The temperatures, one or more."""
        several = self.temperature
        return tuple(map(float, several)) if isinstance(several, Sequence) else (float(several),)

    def plan(self, structure: Structure) -> "Plan":
        """What the controls come to on a structure.

        Raises:
            InputError: If they name what is not there, or contradict each other.
        """
        known, notes = structure.sequence, []
        if self.sequence is None:
            designed = self._designed(structure)
        else:
            known = fitted(structure, self.sequence)
            designed = np.array([letter == UNKNOWN for letter in known])
            other = int(np.sum([a not in (b, UNKNOWN) for a, b in zip(known, structure.sequence, strict=True)]))
            notes.append(f"{len(known) - int(designed.sum())} letters are given, {other} of them not the structure's")
        if not designed.any():
            raise InputError(f"no residue of {structure.name} is designed; choose at least one")
        bias = self._letters()
        if len(bias) not in (1, len(structure)):
            raise InputError(f"bias has {len(bias)} rows for {len(structure)} residues; give one per residue")
        bias = bias + residue_bias(structure, self.residue_omit, self.residue_bias)
        ties = read_ties(structure, self.tie, self.symmetry)
        settled = settle(structure, designed, known, bias, ties.ties)
        notes += ties.notes
        if len(settled.lent):
            notes.append(f"{len(settled.lent)} designed residues take the letter of one that stays, by a tie")
        most = limits(structure, read_limits(self.at_most), designed, settled.lent, settled.known)
        plan = Plan(designed, settled.known, settled.sites, most, sum(len(tie.members) > 1 for tie in ties.ties), notes)
        plan.allowance()
        return plan

    def _designed(self, structure: Structure) -> Bool[np.ndarray, " l"]:
        if self.designed is None:
            return designed_residues(structure, self.design, self.fix)
        mask = np.asarray(self.designed, dtype=bool)
        if len(mask) != len(structure):
            raise InputError(f"designed has {len(mask)} entries for {len(structure)} residues; give one per residue")
        return mask

    def _letters(self) -> Float32[np.ndarray, "rows 20"]:
        """The bias of all residues, [1, 20] or [L, 20]."""
        if self.bias is None or isinstance(self.bias, str):
            return letter_bias(self.omit, self.bias or "")[None]
        added = np.atleast_2d(np.asarray(self.bias, dtype=np.float32))
        if added.ndim != 2 or added.shape[1] != len(AMINO_ACIDS) or np.isnan(added).any() or np.isposinf(added).any():
            raise InputError(f"bias has shape {list(added.shape)}; expected [20] or [L, 20], finite numbers or -inf")
        return added + letter_bias(self.omit, "")


@dataclass(frozen=True, eq=False)
class Plan:
    """What is designed on one structure.

    Attributes:
        designed: The residues that are designed, [L]; the score and the recovery are theirs.
        known: L letters; those of residues that are not drawn stand.
        sites: What is drawn.
        limits: How many of the drawn residues may take each limited letter, by its index.
        ties: Ties of two residues or more.
        notes: What a person should know, one line each.
    """

    designed: Bool[np.ndarray, " l"]
    known: str
    sites: Sites
    limits: Mapping[int, int]
    ties: int
    notes: Sequence[str]

    def allowance(self) -> Allowance | None:
        """The limits of one design, none of them used up; None without limits.

        Raises:
            InputError: If no sequence keeps them.
        """
        if not self.limits:
            return None
        return Allowance(self.limits, self.sites.sizes.tolist(), ~np.isneginf(self.sites.bias))

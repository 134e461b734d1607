"""Sites: what is drawn at once. A designed residue is a site of its own, tied ones are one site together.

Everything that ties, given letters and biases imply is settled here, before anything is drawn, so that a contradiction
is one clear sentence and the sampler cannot run into one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64
from reed_core.errors import InputError

from reed_protein.residues import AMINO_ACIDS, UNKNOWN
from reed_protein.structure import Structure
from reed_protein.ties import Tie


@dataclass(frozen=True, eq=False)
class Sites:
    """The sites of a design: S sites over F residues.

    Attributes:
        places: The residues that are drawn, places in the structure, site by site.
        site: The site of each of them, ascending from 0.
        weights: Their weights, divided by the sum of |w| over the site.
        bias: What is added to the mean logits of each site, nats; -inf forbids a letter.
    """

    places: Int64[np.ndarray, " f"]
    site: Int64[np.ndarray, " f"]
    weights: Float32[np.ndarray, " f"]
    bias: Float32[np.ndarray, "s 20"]

    def __len__(self) -> int:
        return len(self.bias)

    @cached_property
    def first(self) -> Int64[np.ndarray, " s"]:
        """The first residue of each site; the site's random numbers are that residue's."""
        return self.places[np.unique(self.site, return_index=True)[1]]

    @cached_property
    def sizes(self) -> Int64[np.ndarray, " s"]:
        """Residues of each site."""
        return np.bincount(self.site, minlength=len(self)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Settled:
    """What is drawn, and the letters that stand from the start.

    Attributes:
        sites: What is drawn.
        known: L letters: those that stay, and those that ties lend; what is drawn is not looked at.
        lent: Designed residues whose letter a tie to a residue that stays decides.
    """

    sites: Sites
    known: str
    lent: Int64[np.ndarray, " p"]


def settle(
    structure: Structure,
    designed: Bool[np.ndarray, " l"],
    known: str,
    bias: Float32[np.ndarray, "l 20"],
    ties: Sequence[Tie],
) -> Settled:
    """Sites from ties, biases and given letters.

    Args:
        structure: The structure.
        designed: Residues to be designed.
        known: L letters; those of residues that are not designed are given.
        bias: Nats for each residue and letter.
        ties: Disjoint ties.

    Raises:
        InputError: If tied residues must differ, a site has no letter left, or ties leave nothing to draw.
    """
    ids, letters = structure.residue_ids, list(known)
    in_tie = {place for tie in ties for place in tie.members}
    groups: list[Tie] = [Tie((place,), (1.0,)) for place in np.flatnonzero(designed).tolist() if place not in in_tie]
    lent: list[int] = []
    for tie in ties:
        free = [index for index, place in enumerate(tie.members) if designed[place]]
        given = [place for place in tie.members if not designed[place]]
        if free and given:
            letter = _lent(ids, known, given, [tie.members[index] for index in free], bias)
            for index in free:
                letters[tie.members[index]] = letter
                lent.append(tie.members[index])
        elif free:
            groups.append(tie)
    if not groups:
        raise InputError(
            f"every designed residue of {structure.name} is tied to one that stays ({ids[lent[0]]} and others); "
            "design both ends of a tie"
        )
    groups.sort(key=lambda tie: tie.members[0])
    rows = [_site_bias(ids, tie, bias) for tie in groups]
    sizes = [len(tie.members) for tie in groups]
    scale = [sum(map(abs, tie.weights)) for tie in groups]
    sites = Sites(
        places=np.array([place for tie in groups for place in tie.members], dtype=np.int64),
        site=np.repeat(np.arange(len(groups), dtype=np.int64), sizes),
        weights=np.array([w / of for tie, of in zip(groups, scale, strict=True) for w in tie.weights], np.float32),
        bias=np.stack(rows).astype(np.float32),
    )
    return Settled(sites, "".join(letters), np.array(sorted(lent), dtype=np.int64))


def _lent(ids: Sequence[str], known: str, given: Sequence[int], free: Sequence[int], bias: np.ndarray) -> str:
    """The letter that residues which stay lend to those tied to them."""
    found = {known[place] for place in given}
    names = " and ".join(f"{ids[place]} ({known[place]})" for place in given)
    if len(found) > 1:
        raise InputError(f"{ids[free[0]]} is tied to {names}, which stay and differ; design them too, or untie them")
    letter = found.pop()
    if letter == UNKNOWN:
        raise InputError(f"{ids[free[0]]} is tied to {names}, which stays and is of no known type; untie it")
    for place in free:
        if np.isneginf(bias[place, AMINO_ACIDS.index(letter)]):
            raise InputError(f"{ids[place]} is tied to {names}, which stays, but {letter} is omitted there")
    return letter


def _site_bias(ids: Sequence[str], tie: Tie, bias: np.ndarray) -> np.ndarray:
    rows = bias[list(tie.members)]
    weights = np.abs(np.array(tie.weights))
    forbidden = np.isneginf(rows).any(axis=0)
    if forbidden.all():
        names = ", ".join(ids[place] for place in tie.members)
        raise InputError(f"no amino acid is left at {names}: all twenty are omitted there; omit fewer")
    mean = (weights[:, None] * np.where(np.isneginf(rows), 0.0, rows)).sum(0) / weights.sum()
    return np.where(forbidden, -np.inf, mean)

"""How often each letter may still be used in one design: at most c_a residues of letter a, by construction.

Sites take letters one after the other, each the first of its preferred letters that leaves the rest possible. With
noisy logits in descending order that is an exact draw from the model's distribution over the letters still possible.
A site that may take a letter without a limit can always be filled. The other sites (all of their letters limited) hold
a reservation each at all times, a complete assignment within the limits; a letter is possible if the reservations of
the rest can be moved to make room for it. So no draw ends in a dead end and nothing is ever drawn again.

Reservations are moved along augmenting paths (bipartite matching with capacities): exact while the sites that need
reservations have one size; among ties of several sizes a possible letter may be passed over, a limit never.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool
from reed_core.errors import InputError

from reed_protein.residues import AMINO_ACIDS


class Allowance:
    """What is left of the limits of one design.

    Args:
        limits: Residues that may take each limited letter, by its index.
        sizes: Residues of each site.
        allowed: The letters that each site may take at all.

    Raises:
        InputError: If no sequence keeps the limits.
    """

    def __init__(self, limits: Mapping[int, int], sizes: Sequence[int], allowed: Bool[np.ndarray, "s 20"]) -> None:
        self._left = dict(limits)
        self._sizes = [int(size) for size in sizes]
        self._allowed = [set(np.flatnonzero(row).tolist()) for row in allowed]
        self._reserved: dict[int, dict[int, None]] = {letter: {} for letter in limits}
        tight = [site for site, letters in enumerate(self._allowed) if letters <= limits.keys()]
        for site in sorted(tight, key=lambda site: -self._sizes[site]):
            if not any(self._make_room(letter, self._sizes[site]) for letter in sorted(self._allowed[site])):
                names = ", ".join(f"{AMINO_ACIDS[letter]} {count}" for letter, count in sorted(limits.items()))
                raise InputError(
                    f"--at-most leaves no letter for some designed residues (residues allowed: {names}); "
                    "raise a limit, or omit fewer letters"
                )
            room = (letter for letter in sorted(self._allowed[site]) if self._room(letter) >= self._sizes[site])
            self._reserved[next(room)][site] = None

    def take(self, site: int, preferred: Iterable[int]) -> int:
        """The first of some letters that a site can take; what is left shrinks by it.

        Args:
            site: A site that has taken none yet.
            preferred: All letters, best first.
        """
        own = next((letter for letter, sites in self._reserved.items() if site in sites), None)
        if own is not None:
            del self._reserved[own][site]
        size = self._sizes[site]
        for letter in preferred:
            if letter not in self._allowed[site]:
                continue
            if letter not in self._left:
                return letter
            if self._left[letter] < size:
                continue
            if self._make_room(letter, size):
                self._left[letter] -= size
                return letter
        raise AssertionError("a site without a letter: reservations are broken")

    def _room(self, letter: int) -> int:
        return self._left[letter] - sum(self._sizes[site] for site in self._reserved[letter])

    def _make_room(self, letter: int, size: int) -> bool:
        """Moves reservations until a letter has room; if that cannot be, all stay as they were."""
        if self._room(letter) >= size:
            return True
        if self._left[letter] < size:
            return False
        before = {of: dict(sites) for of, sites in self._reserved.items()}
        if self._free(letter, size, {letter}):
            return True
        self._reserved = before
        return False

    def _free(self, letter: int, size: int, seen: set[int]) -> bool:
        while self._room(letter) < size:
            if not self._move_one(letter, seen):
                return False
        return True

    def _move_one(self, letter: int, seen: set[int]) -> bool:
        """Moves one reservation from a letter to another, which may have to be relieved first."""
        for site in list(self._reserved[letter]):
            size = self._sizes[site]
            for other in sorted(self._allowed[site] - seen):
                if self._room(other) < size:
                    seen.add(other)
                    if self._left[other] < size or not self._free(other, size, seen):
                        continue
                    seen.discard(other)
                del self._reserved[letter][site]
                self._reserved[other][site] = None
                return True
        return False

"""Timing on one thread, side by side: every arm once per round, and ratios within a round.

Seconds are CPU seconds of the process. With one thread they are the seconds of the wall on an idle machine, and unlike
those they do not count the time other jobs take from the core.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """The median of some values, the least and the greatest."""

    middle: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of at least one value."""
        return cls(median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        """`1.23 (1.10-1.40)`."""
        return f"{self.middle:.{digits}f} ({self.least:.{digits}f}-{self.greatest:.{digits}f})"


def seconds(arms: Mapping[str, Callable[[], Any]], rounds: int, tick: Callable[[], None]) -> dict[str, list[float]]:
    """CPU seconds of each arm, one value per round, after a round that is not counted.

    Args:
        arms: What to run, by name.
        rounds: How often.
        tick: Called after each run, counted or not.
    """
    found: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(rounds + 1):
        for name, arm in arms.items():
            start = time.process_time()
            arm()
            if round_:
                found[name].append(time.process_time() - start)
            tick()
    return found


def ratio(of: list[float], to: list[float]) -> Spread:
    """`of` divided by `to`, round by round."""
    return Spread.of([above / below for above, below in zip(of, to, strict=True)])

"""Figures over seeds, as the benches print them."""

from collections.abc import Sequence
from statistics import mean, stdev


def spread(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """Mean and standard deviation, as text."""
    values = [factor * value for value in values]
    if len(values) < 2:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def steps_to(steps: Sequence[float], error: Sequence[float], goal: float) -> float | None:
    """The steps at which a curve first passes the goal from above, between marks by a straight line; None if never."""
    before = None
    for step, value in zip(steps, error, strict=True):
        if value <= goal:
            if before is None:
                return float(step)
            past, high = before
            return past + (step - past) * (high - goal) / (high - value)
        before = (step, value)
    return None

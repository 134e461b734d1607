"""Ending a run that no longer improves: the best figure so far and how long ago it was, kept in the checkpoint."""

import math
from typing import Any

from reed_core.errors import InputError
from reed_core.train.config import TrainConfig


class EarlyStop:
    """Counts evaluations that do not improve on the best; a figure that is no number does not.

    Args:
        config: Names the figure, if any, which way is better, and the patience.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.metric, self.patience, self.lower = config.stop_metric, config.stop_patience, config.stop_lower
        self.best: float | None = None
        self.stale = 0

    @property
    def ended(self) -> bool:
        """Whether patience has run out."""
        return self.metric is not None and self.stale >= self.patience

    def saw(self, figures: dict[str, float]) -> None:
        """Takes the figures of an evaluation.

        Raises:
            InputError: If the metric is not among them.
        """
        if self.metric is None:
            return
        if self.metric not in figures:
            raise InputError(
                f"stop_metric {self.metric} is no figure of the evaluation; there are {', '.join(figures) or 'none'}"
            )
        value = float(figures[self.metric])
        improves = self.best is None or (value < self.best if self.lower else value > self.best)
        if improves and not math.isnan(value):
            self.best, self.stale = value, 0
        else:
            self.stale += 1

    def state_dict(self) -> dict[str, Any]:
        """The best and the count."""
        return {"best": self.best, "stale": self.stale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.best, self.stale = state["best"], int(state["stale"])

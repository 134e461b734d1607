"""A `Designer` taken apart: its sampler without the score it gives each design, and a count of decoder evaluations."""

from collections.abc import Callable
from typing import Any

import torch
from reed_protein.design import Designer
from reed_protein.network import Encoding, InverseFolding
from torch import Tensor


class Unscored(Designer):
    """Designs as a `Designer` does, with 0 for every score."""

    def score_tokens(self, encoding: Encoding, sequences: Tensor, scored: Tensor) -> Tensor:
        """Nothing is evaluated."""
        return torch.zeros(len(sequences))


def evaluations(network: InverseFolding, action: Callable[[], Any]) -> int:
    """How often the decoder runs while something is done, whatever the batch."""
    count = 0

    def add(*_: Any) -> None:
        nonlocal count
        count += 1

    handle = network.register_forward_pre_hook(add)
    try:
        action()
    finally:
        handle.remove()
    return count

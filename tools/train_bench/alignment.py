"""The alignment loss over a batch, ours against a loop over samples, as the published trainers compute it.

The loop normalises the tokens of one sample at a time and adds minus their mean cosine; the values agree. Both run
forward and backward on the same projected states, so that only the loss is compared: its time, and the number of
operations it sends to the device, each of which costs a launch on a GPU.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from reed_core.head import VonMisesFisher
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode


class Compared(NamedTuple):
    """What was measured.

    Attributes:
        time: Times of the loop over ours.
        operations: Operations of ours and of the loop, forward and backward.
        gap: Largest difference of the gradients, over the largest gradient.
    """

    time: list[float]
    operations: tuple[int, int]
    gap: float


def vectorised(said: Tensor, z: Tensor) -> Tensor:
    """Ours: the energy of the head at kappa = 1, the mean over tokens and samples."""
    return VonMisesFisher().energy(said, z).mean()


def looped(said: Tensor, z: Tensor) -> Tensor:
    """One sample at a time."""
    total = said.new_zeros(())
    for one, other in zip(said, z, strict=True):
        total = total - (F.normalize(one, dim=-1) * F.normalize(other, dim=-1)).sum(-1).mean()
    return total / len(said)


def ratio(batch: int, tokens: int, dim: int, repeats: int) -> Compared:
    """Runs both.

    Args:
        batch: Samples.
        tokens: Tokens of a sample.
        dim: Width of z.
        repeats: Pairs of measurements.
    """
    torch.manual_seed(0)
    said, z = torch.randn(batch, tokens, dim), torch.randn(batch, tokens, dim)

    def run(loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, Tensor]:
        leaf = said.clone().requires_grad_()
        since = time.perf_counter()
        loss(leaf, z).backward()
        assert leaf.grad is not None
        return time.perf_counter() - since, leaf.grad

    counts, gradients = [], []
    for loss in (vectorised, looped):
        with _Counter() as counter:
            gradients.append(run(loss)[1])
        counts.append(counter.operations)
    ours, theirs = gradients
    found = []
    for number in range(repeats):
        took = {loss: run(loss)[0] for loss in ((vectorised, looped), (looped, vectorised))[number % 2]}
        found.append(took[looped] / took[vectorised])
    return Compared(found, (counts[0], counts[1]), float((ours - theirs).abs().max() / ours.abs().max()))


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))

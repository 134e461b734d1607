"""What every process must know: how to draw a time, corrupt, score a prediction, and weigh it in the bound."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.noise import NoiseSource


@dataclass(frozen=True)
class Corrupted:
    """A clean batch, its corruption at time t, and what a denoiser is asked to say about it.

    Attributes:
        x_0: Clean data, [b, n, ...] (or [b, ...] without a mask).
        x_t: Corrupted data, the same shape.
        t: Diffusion time of each sample, [b], in [0, 1].
        target: What the denoiser should predict; its meaning belongs to the process.
        mask: True where an element exists, [b, n], or None when all do.
        scored: True where the loss is taken, [b, n], or None when everywhere in `mask`.
    """

    x_0: Tensor
    x_t: Tensor
    t: Float[Tensor, "b"]
    target: Tensor
    mask: Bool[Tensor, "b n"] | None = None
    scored: Bool[Tensor, "b n"] | None = None


@runtime_checkable
class Process(Protocol):
    """A forward process. All tensors are batched; padding (mask False) never enters a loss."""

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Draws a training time for each sample."""
        ...

    def corrupt(
        self, x_0: Tensor, t: Float[Tensor, "b"], noise: NoiseSource, mask: Bool[Tensor, "b n"] | None = None
    ) -> Corrupted:
        """Draws x_t given x_0."""
        ...

    def loss(self, prediction: Tensor, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The training loss of each sample, averaged over its own elements."""
        ...

    def elbo_weight(self, t: Float[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The factor that turns the unweighted error at t into nats of the variational bound."""
        ...

    def prior(self, like: Tensor, noise: NoiseSource) -> Tensor:
        """Draws x at t = 1, of the shape and dtype of `like`."""
        ...


def expand_time(t: Float[Tensor, "b"], like: Tensor) -> Tensor:
    """Reshapes [b] to [b, 1, ..., 1] with the rank of `like`."""
    return t.reshape(t.shape[0], *([1] * (like.ndim - 1)))


def masked_mean(values: Float[Tensor, "b ..."], mask: Bool[Tensor, "b ..."] | None) -> Float[Tensor, "b"]:
    """The mean over each sample's own elements; 0 for a sample that has none.

    Args:
        values: [b, n, ...].
        mask: True where an element counts, with the leading axes of `values`; None counts all.
    """
    if mask is None:
        return values.flatten(1).mean(1) if values.ndim > 1 else values
    if values.ndim == 1:
        return torch.where(mask, values, torch.zeros_like(values))
    weights: Any = mask.reshape(*mask.shape, *([1] * (values.ndim - mask.ndim))).expand_as(values)
    kept = torch.where(weights, values, torch.zeros_like(values))
    return kept.flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1)

"""What every process must know: to draw a time, corrupt, score a prediction, step back, and count nats for the bound.

x is one tensor, or a mapping of fields (`reed_core.state`). Time runs over [t_min, t_max] within [0, 1].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.state import State


@dataclass(frozen=True)
class Corrupted:
    """A clean batch, its corruption at time t, and what a denoiser is asked to say about it.

    Attributes:
        x_0: Clean data, [b, n, ...] (or [b, ...] without a mask); a mapping for a product of processes.
        x_t: Corrupted data, of the form of x_0.
        t: Diffusion time of each sample, [b], in [0, 1].
        target: What the denoiser should predict; its meaning belongs to the process.
        mask: True where an element exists, with leading axes of x_0 ([b, n], [b, n, n]), or None when all do.
        scored: True where the loss is taken, or None when everywhere in `mask`.
        parts: The corruption of every field, for a product of processes.
    """

    x_0: State
    x_t: State
    t: Float[Tensor, "b"]
    target: State
    mask: State = None
    scored: Bool[Tensor, "b ..."] | None = None
    parts: "Mapping[str, Corrupted]" = field(default_factory=dict)


@dataclass(frozen=True)
class HybridNats:
    """The two parts of what a hybrid p~ costs at t (THEORY Prop. 1).

    `denoising - log_normaliser` is (1-A) nats(p_u) + A nats(p_c) (THEORY D14).

    Attributes:
        denoising: KL(q || p~), per unit of time, [b].
        log_normaliser: log Z <= 0, per unit of time, [b].
    """

    denoising: Float[Tensor, "b"]
    log_normaliser: Float[Tensor, "b"]


@runtime_checkable
class Process(Protocol):
    """A forward process. All tensors are batched; padding (mask False) never enters a loss."""

    @property
    def t_min(self) -> float:
        """Smallest time of training and sampling."""
        ...

    @property
    def t_max(self) -> float:
        """Largest time of training and sampling."""
        ...

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Draws a training time for each sample, uniform on [t_min, t_max)."""
        ...

    def corrupt(self, x_0: State, t: Float[Tensor, "b"], noise: NoiseSource, mask: State = None) -> Corrupted:
        """Draws x_t given x_0."""
        ...

    def loss(self, prediction: State, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The training loss of each sample, averaged over its own elements."""
        ...

    def prior(self, like: State, noise: NoiseSource, mask: State = None) -> State:
        """Draws x at t = 1, of the shape and dtype of `like`; its values do not matter.

        The mask is needed for fields of pairs alone: with it, padding changes no number of a sample.
        """
        ...

    def step(
        self,
        prediction: State,
        x_t: State,
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: State = None,
    ) -> State:
        """One draw of the reverse kernel p(x_s | x_t), s < t, that the prediction implies; s = 0 gives data."""
        ...


@runtime_checkable
class BoundedProcess(Process, Protocol):
    """A process whose variational bound can be evaluated. Everything is summed over a sample's elements, in nats.

    The bound of one sample is prior_nats + int_{t_min}^{t_max} nats dt + reconstruction_nats (continuous time).
    """

    def prior_nats(self, x_0: State, mask: State = None) -> Float[Tensor, "b"]:
        """KL(q(x_{t_max} | x_0) || p(x_{t_max}))."""
        ...

    def nats(self, prediction: State, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """What the prediction at t costs per unit of time: the limit of KL(q(x_s|x_t,x_0) || p(x_s|x_t)) / (t - s)."""
        ...

    def hybrid_nats(
        self, unconditional: State, conditional: State, A: Float[Tensor, "b"], corrupted: Corrupted
    ) -> HybridNats:
        """The same for p~ = p_u^{1-A} p_c^A / Z, split into KL(q || p~) and log Z."""
        ...

    def reconstruction_nats(self, prediction: State, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The cost -log p(x_0 | x_t) at t = t_min."""
        ...


def expand_time(t: Float[Tensor, "b"], like: Tensor) -> Tensor:
    """Reshapes [b] to [b, 1, ..., 1] with the rank of `like`."""
    return t.reshape(t.shape[0], *([1] * (like.ndim - 1)))


def draw_elements(
    draw: Callable[[Sequence[int]], Tensor], shape: Sequence[int], mask: Bool[Tensor, "b ..."] | None
) -> Float[Tensor, "b ..."]:
    """One draw per element, such that padding a sample changes none of its numbers.

    A longer draw extends a shorter one along its first axis only. When the mask has several element axes ([b, n, n] for
    pairs), numbers are handed out by shells of growing largest index, so that a smaller square comes first.

    Args:
        draw: `noise.uniform`, `noise.normal` or `noise.gumbel`.
        shape: The shape of one sample, element axes first.
        mask: The mask whose axes after b are the element axes; None or [b, n] means one.
    """
    axes = 1 if mask is None else mask.ndim - 1
    if axes < 2:
        return draw(shape)
    elements, side = tuple(shape[:axes]), max(shape[:axes])
    cells = torch.stack(torch.meshgrid(*[torch.arange(side)] * axes, indexing="ij")).flatten(1)
    rank = torch.empty(cells.shape[1], dtype=torch.long)
    rank[cells.amax(0).argsort(stable=True)] = torch.arange(cells.shape[1])
    place = rank.reshape([side] * axes)[tuple(slice(size) for size in elements)]
    return draw((side**axes, *shape[axes:]))[:, place]


def check_possible(logits: Float[Tensor, "b ... k"], where: Bool[Tensor, "b ..."]) -> None:
    """Raises InputError unless some token is possible at every place that counts."""
    if not bool((logits.amax(-1) > -torch.inf)[where].all()):
        raise InputError("no token is possible somewhere: its logits are all -inf, or one is not a number")


def expand_mask(mask: Bool[Tensor, "b ..."], like: Tensor) -> Tensor:
    """A mask over the leading axes of `like`, with axes of length 1 for the others."""
    return mask.reshape(*mask.shape, *([1] * (like.ndim - mask.ndim)))


def masked_sum(values: Float[Tensor, "b ..."], mask: Bool[Tensor, "b ..."] | None) -> Float[Tensor, "b"]:
    """The sum over each sample's own elements.

    Args:
        values: [b, ...].
        mask: True where an element counts, with the leading axes of `values`; None counts all.
    """
    if mask is not None:
        values = torch.where(expand_mask(mask, values), values, torch.zeros_like(values))
    return values.flatten(1).sum(1) if values.ndim > 1 else values


def log_mix(
    unconditional: Float[Tensor, "b ..."], conditional: Float[Tensor, "b ..."], A: Float[Tensor, "b"]
) -> Float[Tensor, "b ..."]:
    """The logarithm of p_u^{1-A} p_c^A, unnormalised; 0^0 = 1.

    Args:
        unconditional: log p_u; -inf where impossible.
        conditional: log p_c, of the same shape.
        A: Survival of each sample, in [0, 1].
    """
    weight = expand_time(A.to(unconditional), unconditional)
    without = torch.where(weight == 1, torch.zeros_like(unconditional), (1.0 - weight) * unconditional)
    return without + torch.where(weight == 0, torch.zeros_like(conditional), weight * conditional)


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
    weights: Any = expand_mask(mask, values).expand_as(values)
    kept = torch.where(weights, values, torch.zeros_like(values))
    return kept.flatten(1).sum(1) / weights.flatten(1).sum(1).clamp(min=1)

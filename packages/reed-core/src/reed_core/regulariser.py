"""Regularisers: losses on hidden states or predictions that are no likelihood of a latent, so no term of the bound.

    dispersive   log E_ij exp(-|h_i - h_j|^2 / (D temperature))                       (arXiv 2506.09027)
    layer sync   -cos(h^(k), stopgrad h^(l)) of the same network, l > k               (THEORY section 4)
    perceptual   |f(x^_0) - f(x_0)|^2 / (2 sigma^2), f frozen: a Gaussian head of z = f(x_0) whose mean is f of the
                 predicted x_0                                                        (THEORY section 4)
The curriculum's a(n) weighs them as it weighs latents; at 0 they cost nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.latent import pool_tokens
from reed_core.process.base import Corrupted, masked_mean
from reed_core.process.interpolant import Interpolant
from reed_core.reveal import RevealDensity, Uniform


@runtime_checkable
class Regulariser(Protocol):
    """A loss on what a denoiser computes anyway."""

    @property
    def name(self) -> str:
        """The key of its loss."""
        ...

    @property
    def weight(self) -> float:
        """Its weight in the total."""
        ...

    @property
    def taps(self) -> tuple[str, ...]:
        """The hidden states it reads."""
        ...

    @property
    def reveal(self) -> RevealDensity:
        """How times weigh; without an atom."""
        ...

    def energy(self, hidden: Mapping[str, Tensor], prediction: Any, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The loss of each sample."""
        ...


@dataclass(frozen=True)
class Dispersive:
    """Hidden states of different samples are pushed apart; no z, no projector.

    The squared distance is divided by the number D of entries of h, so that the temperature does not depend on width.

    Attributes:
        tap: Path of the module read.
        temperature: Scale of squared distances, > 0.
        weight: Weight in the total.
        name: Key of the loss.
        reveal: How times weigh.
    """

    tap: str
    temperature: float = 0.5
    weight: float = 0.5
    name: str = "dispersive"
    reveal: RevealDensity = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise InputError(f"a temperature is positive, got {self.temperature:g}")

    @property
    def across_batch(self) -> bool:
        """Its value is not a mean over samples: a batch must not be cut."""
        return True

    @property
    def taps(self) -> tuple[str, ...]:
        """The one state read."""
        return (self.tap,)

    def energy(self, hidden: Mapping[str, Tensor], prediction: Any, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The same value for every sample: the logarithm of a mean over all pairs, each sample with itself included.

        States of masked samples are pooled first, as padding has no state.
        """
        state = hidden[self.tap]
        if isinstance(corrupted.mask, Tensor) and state.ndim > 2:
            state = pool_tokens(state, corrupted.mask)
        flat = state.flatten(1).to(torch.promote_types(state.dtype, torch.float32))
        square = flat.square().sum(1)
        distance = (square[:, None] + square[None] - 2.0 * flat @ flat.mT).clamp(min=0.0) / flat.shape[1]
        value = torch.logsumexp((-distance / self.temperature).flatten(), 0) - 2.0 * torch.log(
            square.new_ones(()) * len(flat)
        )
        return value.expand(flat.shape[0])


@dataclass(frozen=True)
class LayerSync:
    """An early hidden state is drawn towards a deeper one of the same width, which gets no gradient from it.

    Attributes:
        tap: Path of the early module.
        target: Path of the deeper module.
        weight: Weight in the total.
        name: Key of the loss.
        reveal: How times weigh.
    """

    tap: str
    target: str
    weight: float = 0.5
    name: str = "layer_sync"
    reveal: RevealDensity = field(default_factory=Uniform)

    @property
    def taps(self) -> tuple[str, ...]:
        """The two states read."""
        return (self.tap, self.target)

    def energy(self, hidden: Mapping[str, Tensor], prediction: Any, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Minus the cosine of the two states, over each sample's own elements."""
        early, deep = hidden[self.tap], hidden[self.target].detach()
        if early.shape != deep.shape:
            raise InputError(
                f"states '{self.tap}' {tuple(early.shape)} and '{self.target}' {tuple(deep.shape)} differ; choose two "
                "modules of one shape"
            )
        dtype = torch.promote_types(early.dtype, torch.float32)
        cosine = F.cosine_similarity(early.to(dtype), deep.to(dtype), dim=-1)
        return masked_mean(-cosine, corrupted.mask if early.ndim > 2 else None)


@dataclass(frozen=True)
class Perceptual:
    """The predicted x_0 should look like x_0 to a frozen encoder.

    Attributes:
        encoder: f: x_0 -> features [b, ...]; differentiable, its own parameters frozen, on the device of the data.
        process: The process, which knows the x_0 that a prediction implies.
        sigma: Standard deviation of the head, > 0.
        weight: Weight in the total.
        name: Key of the loss.
        reveal: How times weigh.
    """

    encoder: Callable[[Tensor], Tensor]
    process: Interpolant
    sigma: float = 1.0
    weight: float = 0.5
    name: str = "perceptual"
    reveal: RevealDensity = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InputError(f"a standard deviation sigma is positive, got {self.sigma:g}")

    @property
    def taps(self) -> tuple[str, ...]:
        """No hidden state is read."""
        return ()

    def energy(self, hidden: Mapping[str, Tensor], prediction: Tensor, corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Squared distance of features over 2 sigma^2, averaged over features."""
        guess = self.encoder(self.process.predict_x0(prediction, corrupted.x_t, corrupted.t))
        with torch.no_grad():
            truth = self.encoder(corrupted.x_0)
        return (guess - truth).square().flatten(1).mean(1) / (2.0 * self.sigma**2)

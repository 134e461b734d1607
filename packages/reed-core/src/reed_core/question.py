"""What one training step asks of a denoiser, every random number of it drawn: the input of `Objective.loss`.

A `Question` holds tensors and the latents they belong to, nothing that draws or reads, so the loss of one compiles into
a single graph. a(n) and b(n) are tensors for the same reason: a curriculum does not recompile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from reed_core.generator import FlowDraw
from reed_core.latent import Latent, Representation, Revealed
from reed_core.process.base import Corrupted


@dataclass(frozen=True)
class Asked:
    """One latent whose value is asked for.

    Attributes:
        latent: The latent.
        value: Its true value.
        weight: The reveal density relative to the times drawn, [b]; 1 where the time was drawn from it.
        given: The latents its head sees, with `shown` saying for which samples.
        corrupted: x at a reveal time drawn for this latent alone; None asks at the time of the denoising loss.
        drawn: Random numbers of a `Flow` head.
    """

    latent: Latent
    value: Representation
    weight: Float[Tensor, "b"]
    given: Mapping[str, Revealed] = field(default_factory=dict)
    corrupted: Corrupted | None = None
    drawn: FlowDraw | None = None


@dataclass(frozen=True)
class Question:
    """A batch, corrupted, with what the denoiser is told and what it is asked.

    Attributes:
        corrupted: x at the time of the denoising loss.
        c: The condition, some of it dropped.
        told: What the denoiser sees of explicit latents, or None when there are none.
        asked: The latents asked for; empty when the curriculum is off.
        weight: Weight of each sample in the total, [b], or None.
        a: The curriculum's alignment weight, [].
        b: The curriculum's denoising weight, [].
        regularise: Whether regularisers act.
    """

    corrupted: Corrupted
    c: Any
    told: Mapping[str, Revealed] | None
    asked: tuple[Asked, ...]
    weight: Float[Tensor, "b"] | None
    a: Float[Tensor, ""]
    b: Float[Tensor, ""]
    regularise: bool

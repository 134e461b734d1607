"""Guidance is a denoiser that wraps denoisers, so every sampler takes it unchanged.

Classifier-free guidance (arXiv 2207.12598), on an interval of times (arXiv 2404.07724):
    out = u + scale (c - u)    for t in [low, high];    out = c elsewhere
with u the prediction under the null condition and c under the condition. Scale 1 is the conditional model. The same
line holds for v, eps, x_0 and for token logits (THEORY D6, D16 and section 6): they are affine in the score, or in
log p up to normalisation.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.bound.hybrid import mix_predictions
from reed_core.denoiser import Denoiser


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance.

    Attributes:
        denoiser: The conditional denoiser, trained with the condition dropped now and then.
        null: The null condition it was trained with.
        scale: 1 is no guidance, 0 unconditional.
        interval: Times within which guidance acts, inclusive.
    """

    denoiser: Denoiser
    null: Any
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x_t: Tensor, t: Float[Tensor, "b"], c: Any = None) -> Tensor:
        """The guided prediction; where no sample is inside the interval, one evaluation."""
        conditional = self.denoiser(x_t, t, c)
        inside = (t >= self.interval[0]) & (t <= self.interval[1])
        if self.scale == 1.0 or not bool(inside.any()):
            return conditional
        unconditional = self.denoiser(x_t, t, self.null)
        guided = mix_predictions(unconditional, conditional, self.scale)
        guided = torch.where(conditional == unconditional, conditional, guided)  # a token both forbid (-inf) stays so
        keep = inside.reshape(-1, *([1] * (guided.ndim - 1)))
        return torch.where(keep, guided, conditional)

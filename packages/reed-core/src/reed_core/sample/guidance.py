"""Guidance is a denoiser that wraps denoisers, so every sampler takes it unchanged.

    classifier-free (arXiv 2207.12598)   out = e(0) + w (e(c) - e(0))
    autoguidance (arXiv 2406.02507)      out = bad + w (good - bad)
    class and representation             out = e(0,0) + w_c (e(c,0) - e(0,0)) + w_z (e(c,z) - e(c,0))
e(0) is the prediction under the null condition, e(c, z) that which sees the condition and the latents. Each scale acts
on an interval of times (arXiv 2404.07724) and is 1 elsewhere; 1 is no guidance. The same line holds for v, eps, x_0 and
for token logits (THEORY D6, D16 and section 6), and field by field for mappings.

All of them pass on `z`, so they also serve where a sampler reveals latents on its way (`reveal_ancestral`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.latent import Representations, Revealed
from reed_core.sample.combine import Conditional, Term, ask, check_interval, combine, within
from reed_core.state import State


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance.

    Attributes:
        denoiser: The conditional denoiser, trained with the condition dropped now and then.
        null: The null condition it was trained with.
        scale: 1 is no guidance, 0 unconditional.
        interval: Times within which guidance acts, inclusive.
    """

    denoiser: Conditional
    null: Any
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_interval(self.interval)

    def __call__(
        self, x_t: State, t: Float[Tensor, "b"], c: Any = None, z: Mapping[str, Revealed] | None = None
    ) -> State:
        """The guided prediction; one evaluation at scales 0 and 1, and where no sample is inside the interval."""
        scale = _scale(self.scale, t, self.interval)
        return _away(scale, lambda: ask(self.denoiser, x_t, t, c, z), lambda: ask(self.denoiser, x_t, t, self.null, z))


@dataclass(frozen=True)
class Autoguidance:
    """Guidance of a model by a bad version of itself: smaller, or trained for less time (arXiv 2406.02507).

    Attributes:
        good: The model.
        bad: Its bad version, given the same condition and latents.
        scale: 1 is no guidance, 0 the bad model.
        interval: Times within which guidance acts, inclusive.
    """

    good: Conditional
    bad: Conditional
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_interval(self.interval)

    def __call__(
        self, x_t: State, t: Float[Tensor, "b"], c: Any = None, z: Mapping[str, Revealed] | None = None
    ) -> State:
        """The guided prediction; one evaluation at scales 0 and 1, and where no sample is inside the interval."""
        scale = _scale(self.scale, t, self.interval)
        return _away(scale, lambda: ask(self.good, x_t, t, c, z), lambda: ask(self.bad, x_t, t, c, z))


@dataclass(frozen=True)
class RepresentationGuidance:
    """Guidance by a condition and by latents, each with a scale and an interval of its own.

    At most three evaluations: e(0,0) has the weight 1 - w_c, e(c,0) w_c - w_z and e(c,z) w_z, and what has no weight is
    not evaluated. So (w_c, w_z) = (1, 1) is the model that sees both, (1, 0) the class alone, (0, 0) neither, one
    evaluation each; w_c = w_z guides by both at once, two evaluations.

    Attributes:
        denoiser: A denoiser that takes a condition and latents, trained with each dropped now and then.
        null: The null condition it was trained with.
        scale_c: w_c.
        scale_z: w_z.
        z: The latents, unless the sampler names them (`reveal_ancestral`), which takes precedence.
        interval_c: Times within which w_c acts, inclusive.
        interval_z: Times within which w_z acts, inclusive.
    """

    denoiser: Conditional
    null: Any
    scale_c: float
    scale_z: float
    z: Representations = field(default_factory=dict)
    interval_c: tuple[float, float] = (0.0, 1.0)
    interval_z: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_interval(self.interval_c)
        check_interval(self.interval_z)

    def __call__(
        self, x_t: State, t: Float[Tensor, "b"], c: Any = None, z: Mapping[str, Revealed] | None = None
    ) -> State:
        """The guided prediction."""
        told = z or {name: Revealed(value.z, value.mask) for name, value in self.z.items()}
        by_c, by_z = _scale(self.scale_c, t, self.interval_c), _scale(self.scale_z, t, self.interval_z)
        if not told:  # e(c, z) is e(c, 0)
            by_z = torch.zeros_like(by_z)
        return combine(
            [
                Term(by_z, lambda: ask(self.denoiser, x_t, t, c, told)),
                Term(by_c - by_z, lambda: ask(self.denoiser, x_t, t, c)),
                Term(1.0 - by_c, lambda: ask(self.denoiser, x_t, t, self.null)),
            ]
        )


def _scale(scale: float, t: Float[Tensor, "b"], interval: tuple[float, float]) -> Float[Tensor, "b"]:
    """The scale of each sample: 1 outside the interval."""
    return torch.where(within(t, interval), float(scale), 1.0).to(t)


def _away(scale: Float[Tensor, "b"], good: Callable[[], State], bad: Callable[[], State]) -> State:
    """The prediction bad + scale (good - bad), each side evaluated only where it has weight."""
    return combine([Term(scale, good), Term(1.0 - scale, bad)])

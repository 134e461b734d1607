"""Denoisers that are told latents: each closes over z, or finds it on its way, and every sampler takes it unchanged.

WithLatents     p_c: z is shown throughout (A = 1). With z ~ p(z) this is two-stage generation (RCG, arXiv 2312.03701)
Hybrid          p~ = prod_S p(x_s | x_t, z_S)^{w_t(S)} / Z;  for one latent p_u^{1-A_t} p_c^{A_t} / Z (THEORY D6, D9)
SelfRevealed    z is what the model itself says of it at x_t, anew at every step
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.coupling import Independent, Nested, subsets
from reed_core.errors import InputError
from reed_core.latent import Representations, Revealed
from reed_core.noise import NoiseSource
from reed_core.sample.combine import Conditional, Term, ask, check_interval, combine, within
from reed_core.sample.latents import LatentSource
from reed_core.state import State

Survival = Callable[[Tensor], Tensor]
"""A(t) of one latent, for times of any shape: `RevealDensity.survival`."""


@dataclass(frozen=True)
class WithLatents:
    """A plain denoiser that shows the same latents at every step: the conditional chain, A = 1.

    With z drawn from p(z), by `draw_latents` or a generator of the user's own, any sampler then draws from
    p(z) p(x | z), exactly (THEORY D10, D13). With a z that the user has, it draws from p(x | z).

    Attributes:
        denoiser: A denoiser that can be told latents.
        z: Their values.
    """

    denoiser: Conditional
    z: Representations

    def __call__(self, x_t: State, t: Float[Tensor, "b"], c: Any = None) -> State:
        """The prediction that sees z."""
        return ask(self.denoiser, x_t, t, c, _shown(self.z))


@dataclass(frozen=True)
class Hybrid:
    """p~: predictions with and without each latent, mixed by the probability of being revealed by t.

    Drawing z up front and running this chain is biased unless A = 1 (THEORY D13): it does not sample the model that
    was trained, whose exact sampler is `reveal_ancestral`. As guidance it is a schedule of scales: A > 0 where z should
    lead. For token logits it is the mixture (1-A) l_u + A l_c, whose softmax is p~ given that the token is unmasked
    (THEORY section 6, D12).

    Only revealed sets of non-zero probability are evaluated: at A = 0 or 1 one, to the bit the plain prediction; at
    most 2^L for L independent latents, L + 1 for nested ones.

    Attributes:
        denoiser: A denoiser that can be told latents.
        z: The value of each latent.
        survival: A(t) of each latent, in the order of the coupling (nested: coarse first); values in [0, 1].
        coupling: How their reveal times hang together.
    """

    denoiser: Conditional
    z: Representations
    survival: Mapping[str, Survival]
    coupling: Independent | Nested = field(default_factory=Independent)

    def __post_init__(self) -> None:
        if set(self.z) != set(self.survival):
            raise InputError(
                f"latents {', '.join(self.z) or 'none'} but survivals of {', '.join(self.survival) or 'none'}; give "
                "each latent one"
            )

    def __call__(self, x_t: State, t: Float[Tensor, "b"], c: Any = None) -> State:
        """The mixed prediction at t.

        Raises:
            InputError: If a survival lies outside [0, 1].
        """
        survival = torch.stack([self.survival[name](t) for name in self.survival], -1)
        if not bool(((survival >= 0) & (survival <= 1)).all()):
            raise InputError("a survival A(t) lies in [0, 1]; for other scales use RepresentationGuidance")
        weights = self.coupling.subset_weights(survival)
        return combine(
            [
                Term(weights[:, index], self._told(members, x_t, t, c))
                for index, members in enumerate(subsets(len(self.survival)).tolist())
            ]
        )

    def _told(self, members: list[bool], x_t: State, t: Tensor, c: Any) -> Callable[[], State]:
        names = [name for name, inside in zip(self.survival, members, strict=True) if inside]
        return lambda: ask(self.denoiser, x_t, t, c, _shown({name: self.z[name] for name in names}))


@dataclass(frozen=True)
class SelfRevealed:
    """A denoiser that is told, at every step, what its own heads say of z at x_t.

    With a source that draws, an ancestral step is a draw of int p(x_s | x_t, z) p(z | x_t) dz, which for exact heads is
    p(x_s | x_t). With one that predicts (`ReadoutSource(..., draw=False)`) the model is led by its own features.

    Attributes:
        denoiser: A denoiser that can be told latents.
        source: Where z comes from; each step costs its evaluations more.
        names: Latents to show, in the order in which they see each other.
        noise: One stream per sample, for a source that draws.
        mask: True where an element exists.
        interval: Times within which z is shown, inclusive; elsewhere the denoiser sees none.
    """

    denoiser: Conditional
    source: LatentSource
    names: tuple[str, ...]
    noise: NoiseSource
    mask: State = None
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_interval(self.interval)

    def __call__(self, x_t: State, t: Float[Tensor, "b"], c: Any = None) -> State:
        """The prediction that sees the model's own z."""
        inside = within(t, self.interval)
        told: dict[str, Revealed] = {}
        if bool(inside.any()):
            for name in self.names:
                value = self.source(name, x_t, t, c, told, self.noise, self.mask)
                told = {**told, name: Revealed(value.z, value.mask, inside)}
        return ask(self.denoiser, x_t, t, c, told)


def _shown(z: Representations) -> dict[str, Revealed]:
    return {name: Revealed(value.z, value.mask) for name, value in z.items()}

"""Couplings: how the reveal times of several latents hang together (THEORY section 2, D9).

Any joint distribution of (tau_1..tau_L) whose marginals are the latents' reveal densities is a valid model. At time t
the revealed set is S = {l : tau_l >= t}, and w_t(S) = P(S):
    independent   w_t(S) = prod_{l in S} A^l_t prod_{l not in S} (1 - A^l_t)
    nested        one uniform number drives every tau_l; only prefixes occur when A^1 >= A^2 >= ...:
                  w_t({1..k}) = A^k_t - A^{k+1}_t,  A^0 = 1, A^{L+1} = 0
    user          any sampler of reveal times
Training draws the times once per sample; it never enumerates the 2^L sets. For exact work `subset_weights` does, and
`on_grid` gives P(tau_1..tau_L) on a grid of steps, L axes of T (`reed_core.bound.tuples` reads it):
    independent   prod_l alpha^l_{tau_l}
    nested        the overlap of the intervals [A^l_{tau_l + 1}, A^l_{tau_l}], l = 1..L
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.reveal import RevealDensity, survival_on_grid

_ORDER_GRID = 257


@runtime_checkable
class Coupling(Protocol):
    """A joint distribution of reveal times."""

    def times(self, reveals: Sequence[RevealDensity], noise: NoiseSource) -> Float[Tensor, "b L"]:
        """One draw of (tau_1..tau_L) per sample; tau_l has the distribution `reveals[l]`."""
        ...

    def times_given(
        self, reveals: Sequence[RevealDensity], which: int, tau: Float[Tensor, "b"], noise: NoiseSource
    ) -> Float[Tensor, "b L"]:
        """A draw of all times given that tau of latent `which` has the value `tau`."""
        ...


@dataclass(frozen=True)
class Independent:
    """Every latent draws its own time."""

    def times(self, reveals: Sequence[RevealDensity], noise: NoiseSource) -> Float[Tensor, "b L"]:
        """Independent draws."""
        u = noise.uniform((len(reveals),))
        return torch.stack([reveal.quantile(u[:, index]) for index, reveal in enumerate(reveals)], -1).float()

    def times_given(
        self, reveals: Sequence[RevealDensity], which: int, tau: Float[Tensor, "b"], noise: NoiseSource
    ) -> Float[Tensor, "b L"]:
        """The others do not care."""
        times = self.times(reveals, noise)
        times[:, which] = tau.to(times)
        return times

    def subset_weights(self, survival: Float[Tensor, "*b L"]) -> Float[Tensor, "*b S"]:
        """w(S) for every set, S = 0..2^L - 1 with bit l set when latent l is revealed.

        Args:
            survival: A^l at each time.
        """
        inside = subsets(survival.shape[-1]).to(survival.device)
        return torch.where(inside, survival[..., None, :], 1.0 - survival[..., None, :]).prod(-1)

    def on_grid(self, alphas: Float[Tensor, "L T"]) -> Float[Tensor, "..."]:
        """P(tau_1..tau_L), one axis of T steps (index tau - 1) for each latent.

        Args:
            alphas: Each latent's reveal density on the grid.
        """
        return reduce(lambda table, alpha: table[..., None] * alpha, alphas[1:], alphas[0])


@dataclass(frozen=True)
class Nested:
    """Coarse to fine: the first latent is revealed first (at the largest t), then the second, and so on."""

    def times(self, reveals: Sequence[RevealDensity], noise: NoiseSource) -> Float[Tensor, "b L"]:
        """One uniform number per sample, through every quantile function.

        Raises:
            InputError: If the survivals are not ordered, A^1 >= A^2 >= ...
        """
        check_ordered(reveals)
        u = noise.uniform(())
        return torch.stack([reveal.quantile(u) for reveal in reveals], -1).float()

    def times_given(
        self, reveals: Sequence[RevealDensity], which: int, tau: Float[Tensor, "b"], noise: NoiseSource
    ) -> Float[Tensor, "b L"]:
        """The number that gives `tau` gives the others. A latent with an atom keeps its own draw of it.

        Raises:
            InputError: If the survivals are not ordered.
        """
        check_ordered(reveals)
        if reveals[which].is_atomic:  # u is uniform on the interval that the atom swallows; times are float32 here
            at = tau.float()
            above, top = (reveals[which].survival(t).double() for t in (at, at.nextafter(torch.full_like(at, 2.0))))
            above = top + (above - top) * noise.uniform(()).to(above)
        else:
            above = reveals[which].survival(tau.double())
        times = torch.stack([reveal.quantile(1.0 - above) for reveal in reveals], -1).float()
        times[:, which] = tau.to(times)
        return times

    def subset_weights(self, survival: Float[Tensor, "*b L"]) -> Float[Tensor, "*b S"]:
        """w(S) for every set, S = 0..2^L - 1 with bit l set when latent l is revealed; 0 but for prefixes.

        Args:
            survival: A^l at each time, non-increasing in l.
        """
        count = survival.shape[-1]
        padded = torch.cat([torch.ones_like(survival[..., :1]), survival, torch.zeros_like(survival[..., :1])], -1)
        if bool((padded.diff(dim=-1) > 1e-6).any()):
            raise InputError("nested latents need survivals A^1 >= A^2 >= ...; order the latents coarse to fine")
        weights = survival.new_zeros((*survival.shape[:-1], 2**count))
        prefixes = [2**k - 1 for k in range(count + 1)]
        weights[..., prefixes] = (-padded.diff(dim=-1)).clamp(min=0.0)
        return weights

    def on_grid(self, alphas: Float[Tensor, "L T"]) -> Float[Tensor, "..."]:
        """P(tau_1..tau_L), one axis of T steps (index tau - 1) for each latent.

        Args:
            alphas: Each latent's reveal density on the grid.

        Raises:
            InputError: If the survivals are not ordered.
        """
        tops = torch.stack([survival_on_grid(alpha) for alpha in alphas])
        if bool((tops.diff(dim=0) > 1e-6).any()):
            raise InputError("nested latents need survivals A^1 >= A^2 >= ...; order the latents coarse to fine")
        bottoms = torch.cat([tops[:, 1:], torch.zeros_like(tops[:, :1])], 1)
        highest = reduce(lambda table, top: torch.minimum(table[..., None], top), tops[1:], tops[0])
        lowest = reduce(lambda table, bottom: torch.maximum(table[..., None], bottom), bottoms[1:], bottoms[0])
        return (highest - lowest).clamp(min=0.0)


@dataclass(frozen=True)
class Sampled:
    """A sampler of the user's own.

    Attributes:
        draw: `draw(noise)` returns reveal times [b, L], whose marginals must be the latents' reveal densities.
    """

    draw: Callable[[NoiseSource], Float[Tensor, "b L"]]

    def times(self, reveals: Sequence[RevealDensity], noise: NoiseSource) -> Float[Tensor, "b L"]:
        """The user's draw.

        Raises:
            InputError: If it has another shape.
        """
        times = self.draw(noise)
        if times.shape != (len(noise), len(reveals)):
            raise InputError(
                f"the sampler gave reveal times of shape {tuple(times.shape)}; expected {(len(noise), len(reveals))}"
            )
        if not bool(((times >= 0) & (times <= 1)).all()):
            raise InputError("the sampler gave reveal times outside of [0, 1]; 0 is data and 1 is noise")
        return times

    def times_given(
        self, reveals: Sequence[RevealDensity], which: int, tau: Float[Tensor, "b"], noise: NoiseSource
    ) -> Float[Tensor, "b L"]:
        """Raises: a sampler alone does not say what the others do given one."""
        raise InputError("a sampler of reveal times has no conditional; draw all times with `times`")


def revealed(times: Float[Tensor, "b L"], t: Float[Tensor, "b"]) -> Bool[Tensor, "b L"]:
    """The revealed set of each sample: tau_l >= t."""
    return times >= t[:, None].to(times)


def subsets(count: int) -> Bool[Tensor, "S L"]:
    """Membership of each of the 2^L sets: row S, column l is bit l of S."""
    return (torch.arange(2**count)[:, None] >> torch.arange(count)) % 2 == 1


def check_ordered(reveals: Sequence[RevealDensity]) -> None:
    """Raises InputError unless A^1 >= A^2 >= ... everywhere on a grid."""
    grid = torch.linspace(0.0, 1.0, _ORDER_GRID, dtype=torch.float64)
    survivals = [reveal.survival(grid) for reveal in reveals]
    for index in range(len(survivals) - 1):
        if bool((survivals[index] < survivals[index + 1] - 1e-9).any()):
            raise InputError(
                f"nested latents are revealed coarse to fine, A^1 >= A^2 >= ..., but latent {index + 2} may come "
                f"before latent {index + 1}; reorder them or choose other reveal densities"
            )

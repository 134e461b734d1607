"""The objective: process + latents + reveal + curriculum -> a loss that any training loop can call (THEORY section 5).

    L(n) = b(n) E_t[l_denoise(t)] + a(n) sum_l lambda_l E_t[w_l(t) D_l(P_l(pool_l(h^(k_l)(x_t))), stopgrad z_l)]

w_l(t) = alpha_l(t) / pi(t), where pi is the (uniform) density of training times, so that the effective reveal density
is alpha_l whatever the process samples. A point mass has no density: it draws its own tau, with a forward pass of its
own. Here injection is implicit (p_u = p_c), so only alpha matters, not A.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reed_core.curriculum import Curriculum
from reed_core.denoiser import Tap
from reed_core.errors import InputError
from reed_core.latent import Latent, Representation, Representations, pool_tokens
from reed_core.noise import NoiseSource
from reed_core.process.base import Process, masked_mean
from reed_core.projector import Projector


@dataclass(frozen=True)
class ConditionDropout:
    """Replaces the condition by a null condition for a random part of a batch, as classifier-free guidance needs.

    Attributes:
        probability: Share of samples whose condition is dropped.
        drop: `drop(c, dropped)` returns c with the null condition where `dropped` [b] is True.
    """

    probability: float
    drop: Callable[[Any, Tensor], Any]

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise InputError(f"a share of dropped conditions lies between 0 and 1, got {self.probability:g}")


@dataclass(frozen=True)
class Loss:
    """What an objective returns; everything but `total` is per sample and detached from nothing.

    Attributes:
        total: Scalar to be differentiated.
        denoising: The process's loss of each sample, unweighted by the curriculum, [b].
        alignment: For each latent that was on, its head's energy for each sample, reveal weight included, [b].
        t: The times drawn, [b].
    """

    total: Float[Tensor, ""]
    denoising: Float[Tensor, "b"]
    alignment: dict[str, Float[Tensor, "b"]] = field(default_factory=dict)
    t: Tensor | None = None


class Objective(nn.Module):
    """A training objective; its parameters are the projectors of its latents.

    Args:
        process: The forward process.
        latents: The latents, each read at its own tap; none means plain diffusion.
        curriculum: a(n) and b(n).
        condition_dropout: How and how often the condition is dropped, or None.
    """

    def __init__(
        self,
        process: Process,
        latents: Sequence[Latent] = (),
        curriculum: Curriculum | None = None,
        condition_dropout: ConditionDropout | None = None,
    ) -> None:
        super().__init__()
        names = [latent.name for latent in latents]
        if len(set(names)) != len(names):
            raise InputError(f"latents need different names, got {', '.join(names)}")
        for name in names:
            if not name or "." in name or hasattr(nn.ModuleDict(), name):
                raise InputError(f"'{name}' cannot name a latent: no torch module can have this name; choose another")
        self.process = process
        self.latents = tuple(latents)
        self.curriculum = curriculum or Curriculum()
        self.condition_dropout = condition_dropout
        self.projectors = nn.ModuleDict({latent.name: Projector.for_latent(latent) for latent in latents})

    def forward(
        self,
        denoiser: Callable[..., Tensor],
        x_0: Tensor,
        noise: NoiseSource,
        *,
        z: Representations | Callable[[], Representations] | None = None,
        c: Any = None,
        mask: Bool[Tensor, "b n"] | None = None,
        weight: Float[Tensor, "b"] | None = None,
        n: float = 0.0,
    ) -> Loss:
        """The loss of one batch.

        Args:
            denoiser: The network, called as `denoiser(x_t, t, c)`; a torch module when there are latents.
            x_0: Clean data, [b, ...].
            noise: One random stream per sample.
            z: The value of each latent, or a function that returns them and is called only when alignment is on.
            c: The condition, passed through.
            mask: True where an element of x_0 exists, [b, n].
            weight: Weight of each sample in the total, [b] (for example its number of tokens); None counts all alike.
            n: Samples seen so far, for the curriculum.

        Raises:
            InputError: If alignment is on and a latent has no value, or the noise is for another number of samples.
        """
        if len(noise) != x_0.shape[0]:
            raise InputError(f"noise for {len(noise)} samples, a batch of {x_0.shape[0]}; give one stream per sample")
        a, b = self.curriculum.a(n), self.curriculum.b(n)
        if self.condition_dropout is not None:
            dropped = noise.uniform(()) < self.condition_dropout.probability
            c = self.condition_dropout.drop(c, dropped.to(x_0.device))
        active = [latent for latent in self.latents if a * latent.weight != 0.0]
        values: Representations = {}
        if active:
            values = z() if callable(z) else z or {}
            missing = [latent.name for latent in active if latent.name not in values]
            if missing:
                raise InputError(f"no representation for latent {', '.join(missing)}; give one, or a weight of 0")
        t = self.process.sample_time(noise).to(x_0.device)
        spread = [latent for latent in active if not latent.reveal.is_atomic]
        corrupted = self.process.corrupt(x_0, t, noise, mask)
        prediction, hidden = _run(denoiser, spread, corrupted.x_t, t, c)
        denoising = self.process.loss(prediction, corrupted)
        alignment: dict[str, Tensor] = {}
        for latent in spread:
            energy = self._energy(latent, hidden[latent.tap], values[latent.name], mask)
            alignment[latent.name] = energy * latent.reveal.density(t).to(energy)
        for latent in active:
            if latent.reveal.is_atomic:
                tau = latent.reveal.quantile(noise.uniform(())).to(t)
                revealed = self.process.corrupt(x_0, tau, noise, mask)
                _, hidden = _run(denoiser, [latent], revealed.x_t, tau, c)
                alignment[latent.name] = self._energy(latent, hidden[latent.tap], values[latent.name], mask)
        total = b * _mean(denoising, weight)
        for latent in active:
            total = total + a * latent.weight * _mean(alignment[latent.name], weight)
        return Loss(total=total, denoising=denoising, alignment=alignment, t=t)

    def _energy(self, latent: Latent, hidden: Tensor, value: Representation, mask: Tensor | None) -> Tensor:
        known = value.mask
        if latent.level == "global":
            hidden = pool_tokens(hidden, mask) if hidden.ndim > 2 else hidden
        elif known is None:
            known = mask
        z = value.z.detach().to(hidden.device)
        energy = latent.head.energy(self.projectors[latent.name](hidden), z)
        return masked_mean(energy, None if known is None else known.to(hidden.device))


def _run(
    denoiser: Callable[..., Tensor], latents: Sequence[Latent], x_t: Tensor, t: Tensor, c: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    if not latents:
        return denoiser(x_t, t, c), {}
    if not isinstance(denoiser, nn.Module):
        raise InputError(
            f"latents are read from a torch module, got a {type(denoiser).__name__}; pass the module itself"
        )
    with Tap(denoiser, [latent.tap for latent in latents]) as tap:
        prediction = denoiser(x_t, t, c)
    return prediction, {latent.tap: tap[latent.tap] for latent in latents}


def _mean(values: Float[Tensor, "b"], weight: Float[Tensor, "b"] | None) -> Float[Tensor, ""]:
    if weight is None:
        return values.mean()
    weight = weight.to(values)
    return (values * weight).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)

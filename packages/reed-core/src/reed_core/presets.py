"""The named methods of THEORY section 4, each a few lines: which latents, revealed when, told or only asked.

    none, repa, reed, haste           implicit, uniform
    cutoff, beta, label_probe         implicit or explicit, as the latent says
    rcg, rcg_hierarchy                explicit, revealed at t = 1, with generators of z
    dispersive, layer_sync, perceptual   no z: regularisers
    joint                             z diffuses beside x

Explicit methods need a denoiser that takes z: `reed_core.inject.Injected` makes one of any torch module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor

from reed_core.coupling import Nested
from reed_core.curriculum import Curriculum, Schedule
from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.head import Categorical
from reed_core.latent import Latent
from reed_core.objective import ConditionDropout, Objective
from reed_core.process import Clock, Interpolant, Process, Product
from reed_core.regulariser import Dispersive, LayerSync, Perceptual
from reed_core.reveal import Beta, Cutoff, PointMass, RevealDensity, Uniform


def none(process: Process, condition_dropout: ConditionDropout | None = None) -> Objective:
    """Plain diffusion: no latents."""
    return Objective(process, condition_dropout=condition_dropout)


def repa(process: Process, latent: Latent, condition_dropout: ConditionDropout | None = None) -> Objective:
    """REPA (arXiv 2410.06940): one latent aligned at one depth, revealed uniformly, at constant weight."""
    return _one(process, latent, Uniform(), condition_dropout)


def cutoff(
    process: Process, latent: Latent, low: float, high: float, condition_dropout: ConditionDropout | None = None
) -> Objective:
    """One latent revealed uniformly within [low, high] of diffusion time."""
    return _one(process, latent, Cutoff(low, high), condition_dropout)


def beta(
    process: Process, latent: Latent, p: float, q: float, condition_dropout: ConditionDropout | None = None
) -> Objective:
    """One latent revealed at tau ~ Beta(p, q): (1, 2) gives A = (1-t)^2, (2, 1) gives A = 1-t^2 (THEORY D15)."""
    return _one(process, latent, Beta(p, q), condition_dropout)


def haste(
    process: Process, latent: Latent, stop: float, condition_dropout: ConditionDropout | None = None
) -> Objective:
    """REPA whose alignment ends for good (the stage-wise termination of HASTE, arXiv 2505.16792; features only).

    After `stop` samples neither encoder, cache nor projector runs.
    """
    curriculum = Curriculum(alignment=Schedule(decay="stop", end=stop))
    return Objective(process, [replace(latent, reveal=Uniform())], curriculum, condition_dropout)


def reed(
    process: Process,
    latents: Sequence[Latent],
    denoising_warmup: float = 0.0,
    alignment_end: float | None = None,
    condition_dropout: ConditionDropout | None = None,
    scope: Literal["loss", "learning_rate"] = "loss",
) -> Objective:
    """REED (arXiv 2507.08980): several latents at several depths, revealed uniformly, with a curriculum.

    Args:
        process: The forward process.
        latents: Two or more latents.
        denoising_warmup: Samples over which the denoising weight b(n) rises from 0 to 1 (representation first).
        alignment_end: Samples at which the alignment weight a(n) has fallen to 0 along a cosine; None keeps it at 1.
        condition_dropout: How the condition is dropped, or None.
        scope: What the curriculum scales, as in `Curriculum`.
    """
    fading = Schedule() if alignment_end is None else Schedule(decay="cosine", end=alignment_end)
    return Objective(
        process,
        [replace(latent, reveal=Uniform()) for latent in latents],
        Curriculum(alignment=fading, denoising=Schedule(warmup=denoising_warmup), scope=scope),
        condition_dropout,
    )


def label_probe(process: Process, latent: Latent, condition_dropout: ConditionDropout | None = None) -> Objective:
    """LSEP: z is a class label, asked of a hidden state by a categorical head."""
    if not isinstance(latent.head, Categorical):
        raise InputError(
            f"a label probe asks for a class, but latent '{latent.name}' has the head {type(latent.head).__name__}; "
            "give it Categorical()"
        )
    return _one(process, latent, Uniform(), condition_dropout)


def rcg(process: Process, latent: Latent, condition_dropout: ConditionDropout | None = None) -> Objective:
    """RCG (arXiv 2312.03701): x is generated given z from the start (A = 1), and z by a small flow of its own.

    The latent's tap is dropped, as p(z) sees nothing; a head that is neither `Flow` nor categorical becomes a `Flow`.
    Call `objective.fit_scale` before training.
    """
    return rcg_hierarchy(process, [latent], condition_dropout)


def rcg_hierarchy(
    process: Process, latents: Sequence[Latent], condition_dropout: ConditionDropout | None = None
) -> Objective:
    """Nested diffusion: RCG chained, p(z_1) p(z_2|z_1) ... p(x|z_1..z_L); coarse latents first, all at t = 1."""
    names = [latent.name for latent in latents]
    chained = [
        replace(
            latent,
            tap=None,
            tap_dim=0,
            head=latent.head if isinstance(latent.head, (Flow, Categorical)) else Flow(),
            reveal=PointMass(1.0),
            injection="explicit",
            given=tuple(names[:place]),
        )
        for place, latent in enumerate(latents)
    ]
    return Objective(process, chained, condition_dropout=condition_dropout, coupling=Nested())


def dispersive(
    process: Process,
    tap: str,
    temperature: float = 0.5,
    weight: float = 0.5,
    condition_dropout: ConditionDropout | None = None,
) -> Objective:
    """Dispersive loss (arXiv 2506.09027): hidden states of a batch repel each other; there is no z."""
    return Objective(process, condition_dropout=condition_dropout, regularisers=[Dispersive(tap, temperature, weight)])


def layer_sync(
    process: Process, tap: str, target: str, weight: float = 0.5, condition_dropout: ConditionDropout | None = None
) -> Objective:
    """LayerSync: an early hidden state follows a deeper one of the same network."""
    return Objective(process, condition_dropout=condition_dropout, regularisers=[LayerSync(tap, target, weight)])


def perceptual(
    process: Interpolant,
    encoder: Callable[[Tensor], Tensor],
    sigma: float = 1.0,
    weight: float = 0.5,
    condition_dropout: ConditionDropout | None = None,
) -> Objective:
    """A frozen encoder of the predicted x_0 is the head: Gaussian, of width sigma."""
    return Objective(
        process, condition_dropout=condition_dropout, regularisers=[Perceptual(encoder, process, sigma, weight)]
    )


def joint(
    fields: Mapping[str, Process],
    clocks: Mapping[str, Clock] | None = None,
    condition_dropout: ConditionDropout | None = None,
) -> Objective:
    """ReDi (arXiv 2504.16064): z is a field that diffuses beside x, each on its own clock.

    Clocks that run z to the end before x starts are RCG with one network; equal clocks are ReDi.

    Args:
        fields: The process of each field, {"x": ..., "z": ...}.
        clocks: The clock of each field; those left out run with t.
        condition_dropout: How the condition is dropped, or None.
    """
    return Objective(Product(fields, clocks or {}), condition_dropout=condition_dropout)


def _one(
    process: Process, latent: Latent, reveal: RevealDensity, condition_dropout: ConditionDropout | None
) -> Objective:
    return Objective(process, [replace(latent, reveal=reveal)], condition_dropout=condition_dropout)

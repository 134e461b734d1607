"""The named methods of THEORY section 4, each a few lines: which latents, revealed when, under which curriculum."""

from collections.abc import Sequence
from dataclasses import replace

from reed_core.curriculum import Curriculum, Schedule
from reed_core.latent import Latent
from reed_core.objective import ConditionDropout, Objective
from reed_core.process.base import Process
from reed_core.reveal import Uniform


def none(process: Process, condition_dropout: ConditionDropout | None = None) -> Objective:
    """Plain diffusion: no latents."""
    return Objective(process, condition_dropout=condition_dropout)


def repa(process: Process, latent: Latent, condition_dropout: ConditionDropout | None = None) -> Objective:
    """REPA (arXiv 2410.06940): one latent aligned at one depth, revealed uniformly, at constant weight."""
    return Objective(process, [replace(latent, reveal=Uniform())], condition_dropout=condition_dropout)


def reed(
    process: Process,
    latents: Sequence[Latent],
    denoising_warmup: float = 0.0,
    alignment_end: float | None = None,
    condition_dropout: ConditionDropout | None = None,
) -> Objective:
    """REED (arXiv 2507.08980): several latents at several depths, revealed uniformly, with a curriculum.

    Args:
        process: The forward process.
        latents: Two or more latents.
        denoising_warmup: Samples over which the denoising weight b(n) rises from 0 to 1 (representation first).
        alignment_end: Samples at which the alignment weight a(n) has fallen to 0 along a cosine; None keeps it at 1.
        condition_dropout: How the condition is dropped, or None.
    """
    fading = Schedule() if alignment_end is None else Schedule(decay="cosine", end=alignment_end)
    return Objective(
        process,
        [replace(latent, reveal=Uniform()) for latent in latents],
        Curriculum(alignment=fading, denoising=Schedule(warmup=denoising_warmup)),
        condition_dropout,
    )

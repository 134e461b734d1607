"""Samplers: run a process backwards, from noise at t = 1 to data at t = 0.

`ode` (Euler, Heun), `dpm` (DPM-Solver++ 2M) and `sde` (Euler-Maruyama) sample interpolants on a `grid` of times;
`masked` fills in masked tokens, in random order or the surest first; `ancestral` runs any process by its own reverse
step. `reveal_ancestral` is the exact sampler of a model with latents, which it draws on the way from a source of
`latents`. `guidance` (classifier-free, autoguidance, by condition and representation) and `told` (denoisers that see
given, mixed or their own latents) are denoisers that wrap denoisers, so every sampler takes them; `combine` is the
affine combination they share, and `batch` what samplers do to a batch.
"""

from reed_core.sample.ancestral import ancestral
from reed_core.sample.dpm import dpm_solve
from reed_core.sample.grid import Grid, LogSNRTimes, PowerTimes, cosine_times, uniform_times
from reed_core.sample.guidance import Autoguidance, ClassifierFree, RepresentationGuidance
from reed_core.sample.latents import LatentSource, ReadoutSource, draw_latents
from reed_core.sample.masked import unmask
from reed_core.sample.ode import integrate
from reed_core.sample.reveal_ancestral import RevealSample, reveal_ancestral
from reed_core.sample.sde import euler_maruyama, of_forward, of_noise
from reed_core.sample.told import Hybrid, SelfRevealed, WithLatents

__all__ = [
    "Autoguidance",
    "ClassifierFree",
    "Grid",
    "Hybrid",
    "LatentSource",
    "LogSNRTimes",
    "PowerTimes",
    "ReadoutSource",
    "RepresentationGuidance",
    "RevealSample",
    "SelfRevealed",
    "WithLatents",
    "ancestral",
    "cosine_times",
    "dpm_solve",
    "draw_latents",
    "euler_maruyama",
    "integrate",
    "of_forward",
    "of_noise",
    "reveal_ancestral",
    "uniform_times",
    "unmask",
]

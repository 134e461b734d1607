"""`check_sampler`: does each sample own its randomness, and do samples of an exact denoiser have the law of the data?

For a Gaussian interpolant and data N(m, s^2) the exact denoiser is known: E[x_0 | x_t] is linear in x_t. For other
processes give the exact denoiser and draws of its data.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from reed_core.denoiser import Denoiser
from reed_core.noise import NoiseSource
from reed_core.process.base import Process, expand_time
from reed_core.process.interpolant import Interpolant
from reed_core.state import State, batch_size
from reed_core.testing import measure
from reed_core.testing.measure import require, require_form, require_same

MEAN, STD = 0.7, 0.4

Sampler = Callable[[Denoiser, State, NoiseSource, State], State]


def check_sampler(
    sampler: Sampler,
    process: Process,
    like: State,
    mask: State = None,
    *,
    denoiser: Denoiser | None = None,
    data: State = None,
    slack: float = 0.05,
    count: int = 1000,
    seed: int = 0,
) -> None:
    """Checks a sampler.

    Args:
        sampler: `sampler(denoiser, x, noise, mask)` takes draws x of the prior to samples at t = 0. For example
            `lambda denoiser, x, noise, mask: ancestral(process, denoiser, x, 50, noise, mask=mask)`.
        process: Its process.
        like: A batch of at least two samples, [b, ...]: shapes and dtypes alone matter.
        mask: True where an element exists; give one with padding to have padding checked.
        denoiser: Elementwise and exact for `data`; left out, that of independent Gaussians, for an `Interpolant`.
        data: Draws of the law the denoiser is exact for, [m, ...] of the form of `like`; None skips that comparison.
        slack: Error of the law of samples that is allowed beside chance: of mean and spread, over the spread, for
            Gaussians; a Kolmogorov-Smirnov distance for `data`. It depends on the number of steps.
        count: Samples drawn for the law.
        seed: Of all random numbers.

    Raises:
        AssertionError: With one line, if something is wrong.
    """
    require(batch_size(like) >= 2, "check_sampler needs a batch", f"{batch_size(like)} samples", "at least 2")
    gaussian = denoiser is None
    if denoiser is None:
        require(isinstance(process, Interpolant), "check_sampler", type(process).__name__, "denoiser=... and data=...")
        denoiser = gaussian_denoiser(process, MEAN, STD)  # type: ignore[arg-type]
    _check_streams(sampler, process, denoiser, like, mask, seed)
    if not gaussian and data is None:
        return
    many = measure.repeat(like, 0, count)
    exists = None if mask is None else measure.rows(mask, slice(0, 1))
    masks = None if mask is None else measure.repeat(mask, 0, count)
    x = process.prior(many, NoiseSource(seed + 2, range(count)))
    drawn = measure.columns(sampler(denoiser, x, NoiseSource(seed + 3, range(count)), masks), exists)
    if gaussian:
        _check_moments(drawn, slack)
    else:
        law = measure.columns(data, exists)
        measure.require_same_law(drawn, law, "samples of the exact denoiser against data", "one law", slack)


def gaussian_denoiser(process: Interpolant, mean: float, std: float) -> Denoiser:
    """What the best denoiser says when every number of x_0 is an independent draw of N(mean, std^2)."""

    def denoise(x_t: Tensor, t: Float[Tensor, "b"], c: None = None) -> Tensor:
        wide = x_t.double()
        at = process.coefficients(expand_time(t.double(), wide))
        share = at.signal * std**2 / ((at.signal * std).square() + at.noise.square())
        clean = mean + share * (wide - at.signal * mean)
        return process.prediction_of(clean, wide, t).to(x_t.dtype)

    return denoise


def _check_streams(sampler: Sampler, process: Process, denoiser: Denoiser, like: State, mask: State, seed: int) -> None:
    size = batch_size(like)
    positions = [measure.position(sample) for sample in range(size)]

    def run(batch: State, exists: State, places: list[int], shift: int = 0) -> State:
        x = process.prior(batch, NoiseSource(seed + shift, places))
        return sampler(denoiser, x, NoiseSource(seed + shift + 1, places), exists)

    found = run(like, mask, positions)
    require_form(found, like, "samples")
    require(bool(measure.own(found, mask).isfinite().all()), "samples", "a number that is not finite", "finite numbers")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        again = run(like, mask, positions)
    require_same(again, found, "the same samples drawn twice", "no difference: all randomness is in `noise`", mask)
    other = run(like, mask, positions, shift=10)
    require(measure.apart(other, found, mask) > 0, "samples with another seed", "the same", "others")
    for sample in range(size):
        single = measure.cut_mask(mask, sample)
        alone = run(measure.alone(like, mask, sample), single, positions[sample : sample + 1])
        require_same(
            alone,
            measure.alone(found, mask, sample),
            f"sample {sample} alone and in a padded batch",
            "no difference: each sample draws from its own stream, and padding is not seen",
            single,
        )


def _check_moments(drawn: Float[Tensor, "n k"], slack: float) -> None:
    count, chance = len(drawn), 4.5 / math.sqrt(len(drawn))
    shift = float(((drawn.mean(0) - MEAN) / STD).abs().max())
    most = chance + slack
    what = f"{count} samples of the exact denoiser of N({MEAN}, {STD}^2)"
    require(shift <= most, f"{what}, mean", f"{shift:.3f} standard deviations off", f"at most {most:.3f}")
    ratio = drawn.std(0) / STD
    worst = float((ratio - 1).abs().max())
    require(worst <= most, f"{what}, spread", f"{worst:.3f} of it off", f"at most {most:.3f}")

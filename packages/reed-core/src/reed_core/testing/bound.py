"""`check_bound`: do the nats of a `BoundedProcess` hang together?

    nats >= 0, a sum over a sample's own elements, 0 for the exact prediction
    denoising - log_normaliser = (1-A) nats(p_u) + A nats(p_c),   log Z <= 0                          (THEORY D14, D5)
    A = 0:  p~ = p_u, log Z = 0;   A = 1:  p~ = p_c, log Z = 0
That the bound is tight for an exact model needs a law of data that is known; it is not checked here.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from reed_core.process.base import BoundedProcess, Corrupted
from reed_core.state import State, map_state
from reed_core.testing import measure
from reed_core.testing.case import Case
from reed_core.testing.measure import require, require_per_sample, require_same

ZERO = 1e-3


def check_bound(
    process: BoundedProcess,
    x_0: State,
    mask: State = None,
    *,
    exact: Callable[[Corrupted], State],
    exact_nats: float | None = 0.0,
    seed: int = 0,
) -> None:
    """Checks prior_nats, nats, hybrid_nats and reconstruction_nats on a batch of data.

    Args:
        process: The process.
        x_0: Data, [b, ...].
        mask: True where an element exists, as the process takes it.
        exact: `exact(corrupted)` is the best prediction.
        exact_nats: What the exact prediction costs per unit of time; None where that is not a constant.
        seed: Of all random numbers.

    Raises:
        AssertionError: With one line, if something is wrong.
    """
    case = Case(process, x_0, mask, exact, seed)
    corrupted = case.corrupt(case.spread())
    best, wrong = exact(corrupted), case.wrong(corrupted)
    _check_terms(case, process, corrupted)
    nats = process.nats(wrong, corrupted)
    if exact_nats is not None:
        least = process.nats(best, corrupted)
        expected = torch.full_like(least, exact_nats)
        require_same(least, expected, "nats of the exact prediction", f"{exact_nats:g}", most=ZERO)
        _check_sum(case, process, wrong, corrupted, exact_nats)
    require(bool((nats > 0).any()), "nats of a random prediction", float(nats.sum()), "more than 0")
    _check_hybrid(process, wrong, case.wrong(corrupted, 1), corrupted)
    _check_hybrid(process, wrong, best, corrupted)


def _check_terms(case: Case, process: BoundedProcess, corrupted: Corrupted) -> None:
    """Every term is one finite number per sample, the same alone and padded, whatever lies in the padding."""
    start = case.corrupt(case.at(process.t_min))

    def terms(one: Case, sample: int | None, junk: float | None = None) -> dict[str, Tensor]:
        def of(whole: Corrupted) -> tuple[State, Corrupted]:
            said = case.wrong(whole)
            if sample is not None:
                return measure.alone(said, case.mask, sample), one.corrupt(whole.t[sample : sample + 1])
            return (said, whole) if junk is None else (measure.spoiled(said, case.mask, junk), one.corrupt(whole.t))

        said, noisy = of(corrupted)
        first, begun = of(start)
        A = torch.full_like(noisy.t, 0.3)
        hybrid = process.hybrid_nats(said, map_state(torch.neg, said), A, noisy)
        return {
            "prior_nats": process.prior_nats(one.x_0, one.mask),
            "nats": process.nats(said, noisy),
            "hybrid_nats, denoising": hybrid.denoising,
            "hybrid_nats, log_normaliser": hybrid.log_normaliser,
            "reconstruction_nats": process.reconstruction_nats(first, begun),
        }

    whole = terms(case, None)
    for name, value in whole.items():
        require_per_sample(value, case.size, name)
        if name in ("prior_nats", "nats", "hybrid_nats, denoising"):
            require(float(value.min()) >= -ZERO, name, float(value.min()), "at least 0: it is a divergence")
    junk = terms(replace(case, x_0=measure.spoiled(case.x_0, case.mask, torch.nan)), None, 1e3)
    for name, value in junk.items():
        require_same(value, whole[name], f"{name} with junk in the padding", "the same: padding never enters")
    for sample in range(case.size):
        for name, value in terms(case.single(sample), sample).items():
            require_same(
                value,
                whole[name][sample : sample + 1],
                f"{name} of sample {sample} alone and in a padded batch",
                "no difference",
            )
    said = process.reconstruction_nats(case.exact(start), start)
    gain = float((said - whole["reconstruction_nats"]).max())
    require(gain <= ZERO, "reconstruction_nats of the exact prediction", f"{gain:.3g} above a random one", "below it")


def _check_sum(case: Case, process: BoundedProcess, wrong: State, corrupted: Corrupted, exact_nats: float) -> None:
    """Wrong on the first half, exact elsewhere: a sum is that of the half alone; an average is less."""
    masks = case.mask
    if masks is None or exact_nats != 0.0 or isinstance(masks, dict) or isinstance(case.x_0, dict) or masks.ndim != 2:
        return
    sample = int(masks.sum(1).argmax())
    single = case.single(sample)
    half = int(single.mask.shape[1]) // 2
    if half == 0:
        return
    noisy = single.corrupt(corrupted.t[sample : sample + 1])
    said, best = measure.alone(wrong, masks, sample), case.exact(noisy)
    mixed = torch.cat([said[:, :half], best[:, half:]], 1)
    part = replace(single, x_0=single.x_0[:, :half], mask=single.mask[:, :half])
    alone = process.nats(said[:, :half], part.corrupt(noisy.t))
    found = process.nats(mixed, noisy)
    require_same(found, alone, "nats with an error in half of the elements", "those of that half: a sum", most=ZERO)


def _check_hybrid(process: BoundedProcess, without: State, told: State, corrupted: Corrupted) -> None:
    nats_u, nats_c = process.nats(without, corrupted), process.nats(told, corrupted)
    for survival in (0.0, 0.25, 0.7, 1.0):
        A = torch.full_like(corrupted.t, survival)
        hybrid = process.hybrid_nats(without, told, A, corrupted)
        log_z = hybrid.log_normaliser
        require(float(log_z.max()) <= ZERO, f"log Z at A = {survival:g}", float(log_z.max()), "at most 0")
        require_same(
            hybrid.denoising - log_z,
            (1 - survival) * nats_u + survival * nats_c,
            f"hybrid_nats, denoising - log Z at A = {survival:g}",
            "(1-A) nats(p_u) + A nats(p_c)",
            most=ZERO,
        )
        if survival in (0.0, 1.0):
            require_same(log_z, torch.zeros_like(log_z), f"log Z at A = {survival:g}", "0", most=ZERO)
    require(bool((log_z_of(process, without, told, corrupted) < 0).any()), "log Z at A = 0.5", 0.0, "less than 0")


def log_z_of(process: BoundedProcess, without: State, told: State, corrupted: Corrupted) -> Tensor:
    """Log Z half way between two different predictions."""
    return process.hybrid_nats(without, told, torch.full_like(corrupted.t, 0.5), corrupted).log_normaliser

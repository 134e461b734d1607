"""`check_process`: does a forward process keep the promises of `reed_core.process.Process`?

With q(x_s | x_t, x_0) of the process and the target of x_t as prediction, one step back from t to s gives the law of
x_s given x_0: sum over x_t of q(x_t | x_0) q(x_s | x_t, x_0) = q(x_s | x_0). That is what the last check compares.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.nn import functional as F

from reed_core.noise import NoiseSource
from reed_core.process.base import BoundedProcess, Corrupted, Process
from reed_core.state import State, batch_size, map_state
from reed_core.testing import measure
from reed_core.testing.bound import check_bound
from reed_core.testing.case import Case
from reed_core.testing.measure import require, require_form, require_per_sample, require_same

SURE = 50.0  # logit of the right token of an exact prediction; e^-50 is left for the others


def check_process(
    process: Process,
    x_0: State,
    mask: State = None,
    *,
    exact: Callable[[Corrupted], State] | None = None,
    jump: float = 0.1,
    near: float = 0.1,
    slack: float = 0.03,
    count: int = 2000,
    seed: int = 0,
) -> None:
    """Checks a process on a batch of its data; a `BoundedProcess` also goes through `check_bound`.

    Args:
        process: The process.
        x_0: At least two samples, [b, ...], of different data; the more alike they are, the less is seen.
        mask: True where an element exists, as the process takes it; give one with padding to have padding checked.
        exact: `exact(corrupted)` is the best prediction; left out, the target, or logits that are sure of it.
        jump: Size of the step whose law is compared, as a share of [t_min, t_max].
        near: Share of the distance from data to noise that counts as near to the data.
        slack: What a step may miss the exact law by, in Kolmogorov-Smirnov distance (an Euler step is not exact).
        count: Draws of each statistical check.
        seed: Of all random numbers.

    Raises:
        AssertionError: With one line, if something is wrong.
    """
    require(batch_size(x_0) >= 2, "check_process needs a batch", f"{batch_size(x_0)} samples", "at least 2")
    case = Case(process, x_0, mask, exact or (lambda corrupted: exact_prediction(process, corrupted)), seed)
    _check_times(process, seed)
    _check_corruption(case)
    _check_ends(case, near, count)
    _check_loss(case)
    _check_prior(case)
    _check_step(case, near)
    _check_step_law(case, jump, slack, count)
    if isinstance(process, BoundedProcess):
        check_bound(process, x_0, mask, exact=case.exact, seed=seed)


def exact_prediction(process: Any, corrupted: Corrupted) -> State:
    """The target; for tokens logits that are sure of it; field by field for a product (`process.fields`)."""
    if corrupted.parts:
        return {name: exact_prediction(process.fields[name], part) for name, part in corrupted.parts.items()}
    if isinstance(corrupted.target, Mapping) or corrupted.target.is_floating_point():
        return corrupted.target
    classes = getattr(process, "num_tokens", None)
    if classes is None:
        raise AssertionError(
            "exact prediction of whole numbers: measured no process.num_tokens, expected it or exact=..."
        )
    return SURE * F.one_hot(corrupted.target.clamp(0, classes - 1).long(), classes).float()


def _check_times(process: Process, seed: int) -> None:
    low, high, count = process.t_min, process.t_max, 1000
    require(0.0 <= low < high <= 1.0, "t_min and t_max", f"{low} and {high}", "0 <= t_min < t_max <= 1")
    t = process.sample_time(NoiseSource(seed, range(count)))
    require_per_sample(t, count, "sample_time")
    require(
        low <= float(t.min()) and float(t.max()) <= high,
        "sample_time, range",
        f"{float(t.min()):.4g} to {float(t.max()):.4g}",
        f"times within t_min = {low:g} and t_max = {high:g}",
    )
    even = torch.linspace(low, high, 10 * count, dtype=torch.float64)[:, None]
    measure.require_same_law(t[:, None].double(), even, "sample_time, law", "uniform times on [t_min, t_max)")
    few = process.sample_time(NoiseSource(seed, range(10, 20)))
    require_same(few, t[10:20], "sample_time of the same samples in another batch", "the same times")


def _check_corruption(case: Case) -> None:
    t = case.spread()
    before = map_state(torch.clone, case.x_0)
    corrupted = case.corrupt(t)
    require_same(before, case.x_0, "corrupt, its argument x_0 afterwards", "x_0 left as it was", case.mask, 0.0)
    require_form(corrupted.x_t, case.x_0, "corrupt, x_t")
    require(torch.equal(corrupted.t, t), "corrupt, its t", corrupted.t.tolist(), "the times that were asked for")
    require_same(case.corrupt(t).x_t, corrupted.x_t, "corrupt twice with one noise", "the same x_t", case.mask)
    other = replace(case, seed=case.seed + 1).corrupt(t).x_t
    require(measure.apart(other, corrupted.x_t, case.mask) > 0, "corrupt with another seed", "the same x_t", "another")
    require(
        bool(measure.own(corrupted.x_t, case.mask).isfinite().all()),
        "corrupt, x_t",
        "a number that is not finite",
        "finite numbers",
    )
    for sample in range(case.size):
        single = case.single(sample)
        found = single.corrupt(t[sample : sample + 1])
        for name in ("x_t", "target"):
            require_same(
                getattr(found, name),
                measure.alone(getattr(corrupted, name), case.mask, sample),
                f"corrupt, {name} of sample {sample} alone and in a padded batch",
                "no difference: each sample draws from its own stream",
                single.mask,
            )
    junk = replace(case, x_0=measure.spoiled(case.x_0, case.mask, torch.nan)).corrupt(t)
    require_same(junk.x_t, corrupted.x_t, "corrupt with junk in the padding of x_0", "the same x_t", case.mask)


def _check_ends(case: Case, near: float, count: int) -> None:
    low, high = case.process.t_min, case.process.t_max
    start, end = case.corrupt(case.at(low)), case.corrupt(case.at(high))
    share = measure.near_share(start.x_t, case.x_0, end.x_t, near, case.mask)
    require(share >= 0.9, f"corrupt at t_min = {low:g}", f"{share:.0%} of x_t near x_0", "at least 90 %: t = 0 is data")
    for sample in range(min(case.size, 2)):
        many = case.many(sample, count)
        noisy = many.corrupt(many.at(high)).x_t
        drawn = many.process.prior(many.x_0, NoiseSource(case.seed + 1, range(count)), many.mask)
        kept, origin = case.row(sample)
        measure.require_same_law(
            measure.columns(noisy, kept, origin),
            measure.columns(drawn, kept, origin),
            f"corrupt at t_max = {high:g}, x_t of sample {sample} against draws of prior",
            "one law whatever x_0 is: t = 1 is noise",
        )


def _check_loss(case: Case) -> None:
    process, mask = case.process, case.mask
    corrupted = case.corrupt(case.spread())
    best, wrong = case.exact(corrupted), case.wrong(corrupted)
    least = process.loss(best, corrupted)
    require_per_sample(least, case.size, "loss of an exact prediction")
    for name, said in {
        "a random prediction": wrong,
        "half the exact prediction": map_state(lambda value: 0.5 * value, best),
        "0.95 times the exact prediction": map_state(lambda value: 0.95 * value, best),
        "1.05 times the exact prediction": map_state(lambda value: 1.05 * value, best),
        "minus the exact prediction": map_state(lambda value: -value, best),
    }.items():
        loss = process.loss(said, corrupted)
        gain = float((least - loss).max())
        require(gain <= 1e-5, f"loss of {name}", f"{gain:.3g} below that of the exact one", "the exact one is best")
    high = process.loss(wrong, corrupted)
    require_per_sample(high, case.size, "loss")
    require(
        bool((high > least + 1e-6).any()), "loss of a random prediction", float(high.sum()), "more than of the exact"
    )
    _check_gradient(case, wrong, corrupted)
    mixed = map_state(lambda one, two: torch.cat([one[:1], two[1:]]), wrong, best)
    require_same(process.loss(mixed, corrupted)[:1], high[:1], "loss of sample 0 when others change", "the same loss")
    junk = replace(case, x_0=measure.spoiled(case.x_0, mask, torch.nan)).corrupt(corrupted.t)
    found = process.loss(measure.spoiled(wrong, mask, torch.nan), junk)
    require_same(found, high, "loss with junk in the padding", "the same loss: padding never enters")
    for sample in range(case.size):
        single = case.single(sample)
        found = process.loss(measure.alone(wrong, mask, sample), single.corrupt(corrupted.t[sample : sample + 1]))
        require_same(
            found,
            high[sample : sample + 1],
            f"loss of sample {sample} alone and in a padded batch",
            "no difference: it is averaged over the sample's own elements",
        )


def _check_gradient(case: Case, wrong: State, corrupted: Corrupted) -> None:
    said = map_state(lambda value: value.clone().requires_grad_(), measure.spoiled(wrong, case.mask, 1e3))
    loss = case.process.loss(said, corrupted).sum()
    require(loss.requires_grad, "loss, its gradient", "none", "a loss that is differentiable in the prediction")
    leaves = list(measure.tensors(said).values())
    slopes = torch.autograd.grad(loss, leaves, allow_unused=True)
    for (name, leaf), slope in zip(measure.tensors(said).items(), slopes, strict=True):
        title = " ".join(filter(None, ["loss, its gradient", name]))
        require(slope is not None and bool(slope.isfinite().all()), title, "none, or not finite", "finite numbers")
        exists = case.mask_of(name)
        if slope is not None and exists is not None:
            require(not bool(slope[~exists].any()), f"{title} in the padding", "not 0", "0: padding never enters")
        require(slope is not None and bool(slope.any()), title, f"0 over {tuple(leaf.shape)}", "a gradient")


def _check_prior(case: Case) -> None:
    process = case.process
    drawn = process.prior(case.x_0, case.noise(), case.mask)
    require_form(drawn, case.x_0, "prior")
    turned = process.prior(measure.rows(case.x_0, torch.arange(case.size).flip(0)), case.noise(), case.mask)
    require_same(turned, drawn, "prior for other values of `like`", "the same draw: only shape and dtype matter")
    for sample in range(case.size):
        single = case.single(sample)
        require_same(
            process.prior(single.x_0, single.noise(), single.mask),
            measure.alone(drawn, case.mask, sample),
            f"prior of sample {sample} alone and in a padded batch",
            "no difference: each sample draws from its own stream",
            single.mask,
        )


def _check_step(case: Case, near: float) -> None:
    process, mask = case.process, case.mask
    t = case.spread()
    corrupted = case.corrupt(t)
    said = case.wrong(corrupted)
    junk_said, junk_x = (measure.spoiled(value, mask, 1e3) for value in (said, corrupted.x_t))
    for s in (0.5 * (t + process.t_min), torch.zeros_like(t)):
        name = "step to s = 0" if not s.any() else "step"
        x_s = process.step(said, corrupted.x_t, t, s, case.noise(1), mask)
        require_form(x_s, case.x_0, f"{name}, x_s")
        require(bool(measure.own(x_s, mask).isfinite().all()), name, "a number that is not finite", "finite numbers")
        again = process.step(junk_said, junk_x, t, s, case.noise(1), mask)
        require_same(again, x_s, f"{name} with junk in the padding", "the same x_s", mask)
        for sample in range(case.size):
            one, single = slice(sample, sample + 1), case.single(sample)
            found = process.step(
                measure.alone(said, mask, sample),
                measure.alone(corrupted.x_t, mask, sample),
                t[one],
                s[one],
                single.noise(1),
                single.mask,
            )
            require_same(
                found,
                measure.alone(x_s, mask, sample),
                f"{name}, x_s of sample {sample} alone and in a padded batch",
                "no difference: each sample draws from its own stream",
                single.mask,
            )
    start, end = case.corrupt(case.at(process.t_min)), case.corrupt(case.at(process.t_max))
    x_s = process.step(case.exact(start), start.x_t, start.t, torch.zeros_like(start.t), case.noise(1), mask)
    share = measure.near_share(x_s, case.x_0, end.x_t, near, mask)
    require(share >= 0.9, "step from t_min to 0 with the exact prediction", f"{share:.0%} near x_0", "at least 90 %")


def _check_step_law(case: Case, jump: float, slack: float, count: int) -> None:
    low, high = case.process.t_min, case.process.t_max
    for part in (0.9, 0.5, 0.5 * jump + 0.1):
        t, s = low + part * (high - low), low + (part - jump if part > jump else 0.0) * (high - low)
        for sample in range(min(case.size, 2)):
            many = case.many(sample, count)
            corrupted = many.corrupt(many.at(t))
            x_s = case.process.step(
                many.exact(corrupted), corrupted.x_t, corrupted.t, many.at(s), many.noise(1), many.mask
            )
            kept, origin = case.row(sample)
            expected = replace(many, seed=case.seed + 2).corrupt(many.at(s)).x_t
            measure.require_same_law(
                measure.columns(x_s, kept, origin),
                measure.columns(expected, kept, origin),
                f"step with the exact prediction from t = {t:.2g} to s = {s:.2g}, sample {sample} against corrupt at s",
                "one law",
                slack,
            )

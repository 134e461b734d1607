"""Experimental: which depth, which weight, when to stop - from short training runs, with their evidence.

Each candidate depth is aligned for a few hundred steps beside a plain run from the same weights, on the same data,
times and noise. The rule, in order:

1. Information. On held-out samples the readout must prefer z to the z of another sample,
   excess = E[energy(h, z of another) - energy(h, z)] > 4 standard errors. Without that there is no evidence that z says
   anything about x, and the weight is 0.
2. No harm. A depth drops out if its held-out denoising loss is above the plain one by more than 2 errors, or if its
   gradient cosine (over the parameters that alignment reaches) is below 0 by more than 2 errors in the first half.
3. Depth. Of the depths whose gain in denoising loss is within 2 errors of the best, the one of largest mean cosine.
4. Weight. lambda keeps the alignment gradient at a target share s of the two norms: lambda = s / (1 - s) |g_d| / |g_l|,
   measured along the run and followed by it. The median is recommended.
5. Stop. The first look from which on, in two looks or more, the cosine is below 0 by more than 2 errors (what HASTE,
   arXiv 2505.16792, stops at). None when that does not happen in the probe.

What a short probe cannot see is said in `caveats`. A network far from trained, or a probe too short for z to be learnt,
gives "no evidence" rather than a guess.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.denoiser import Tap
from reed_core.diagnose.data import representation
from reed_core.diagnose.gradients import gradient_table
from reed_core.diagnose.quiet import watched
from reed_core.errors import InputError
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource, mix_seed
from reed_core.objective import Objective
from reed_core.process.base import Process
from reed_core.state import any_tensor, batch_size
from reed_core.train.data import Batch

_INFORMATION = 4.0  # standard errors: by chance once in 30,000 depths
_DOUBT = 2.0  # standard errors
_LOOK_BATCHES = 4
_DRAWS = 2  # corruptions of each held-out sample


@dataclass(frozen=True)
class Look:
    """The gradients of one run at one moment, over all parameters that alignment reaches.

    Attributes:
        samples: Samples seen.
        cosine: Mean over batches of the cosine of denoising and alignment gradients.
        error: Its standard error.
        weight: lambda at which the alignment gradient has the target share.
    """

    samples: int
    cosine: float
    error: float
    weight: float


@dataclass(frozen=True)
class DepthEvidence:
    """What the probe found at one depth.

    Attributes:
        tap: Module path.
        width: Width of the hidden state.
        excess: By how much held-out energy grows when z is exchanged for another sample's, reveal weight included.
        excess_error: Its standard error.
        gain: Held-out denoising loss of the plain run less that of the aligned run; positive is better.
        gain_error: Its standard error: over samples or over runs, the larger one.
        looks: Gradients along the run, means over runs.
        verdict: In words, whether the depth was a candidate and why.
    """

    tap: str
    width: int
    excess: float
    excess_error: float
    gain: float
    gain_error: float
    looks: tuple[Look, ...]
    verdict: str


@dataclass(frozen=True)
class Recommendation:
    """What to try, and why.

    Attributes:
        depth: Module path to align, or None for no alignment.
        weight: lambda of the latent; 0 for no alignment.
        stop: Samples after which to stop aligning (`Schedule(decay="stop", end=stop)`), or None if the probe saw none.
        evidence: One entry per candidate depth.
        plain_loss: Held-out denoising loss of the plain run.
        caveats: What this does not show.
    """

    depth: str | None
    weight: float
    stop: float | None
    evidence: tuple[DepthEvidence, ...]
    plain_loss: float
    caveats: tuple[str, ...]

    def table(self) -> str:
        """The evidence as text, one line per depth."""
        lines = [f"{'depth':<20}{'excess':>18}{'gain':>20}{'cosine':>9}{'weight':>10}  verdict"]
        for entry in self.evidence:
            excess = f"{entry.excess:.4f} +- {entry.excess_error:.4f}"
            gain = f"{entry.gain:+.4f} +- {entry.gain_error:.4f}"
            cosine, weight = _early_cosine(entry.looks)[0], _median_weight(entry.looks)
            lines.append(f"{entry.tap:<20}{excess:>18}{gain:>20}{cosine:>9.3f}{weight:>10.3g}  {entry.verdict}")
        return "\n".join(lines)


def recommend(
    process: Process,
    denoiser: nn.Module,
    latent: Latent,
    taps: Sequence[str],
    train: Sequence[Batch],
    held_out: Sequence[Batch],
    *,
    steps: int = 300,
    share: float = 0.3,
    learning_rate: float = 1e-3,
    looks: int = 6,
    runs: int = 2,
    seed: int = 0,
) -> Recommendation:
    """Probes candidate depths by short runs. The rule is in this module's first lines.

    Args:
        process: The forward process.
        denoiser: The network as it is to be aligned: new, or partly trained. It is copied, not changed.
        latent: The latent; its tap, width and weight are what is asked, everything else is taken from it.
        taps: Candidate depths, as module paths.
        train: Training batches, used in turn, in an order of each run's own.
        held_out: Batches for the evidence, two samples or more in each.
        steps: Steps of a run; a run at every depth and a plain one, each `runs` times.
        share: Target share of the alignment gradient, in (0, 1).
        learning_rate: Of AdamW, constant.
        looks: How often gradients are compared in a run.
        runs: Repetitions with other orders, times, noise and readouts.
        seed: Seed of everything drawn.

    Raises:
        InputError: If there is nothing to probe, or a number is out of range.
    """
    if not taps or not train or not held_out or min(batch_size(batch.x_0) for batch in held_out) < 2:
        raise InputError("a probe needs taps, training batches, and held-out batches of two samples or more")
    if not 0.0 < share < 1.0 or looks < 2 or steps < looks or runs < 1:
        raise InputError(
            f"share {share:g}, {looks} looks, {steps} steps, {runs} runs; expected a share between 0 and 1, two looks "
            "or more, a step for each, and a run"
        )
    probe_of = _Probe(process, tuple(train), tuple(held_out), steps, share, learning_rate, looks, seed)
    widths = _widths(denoiser, taps, train[0])
    plain = [probe_of.run(denoiser, None, number).denoising for number in range(runs)]
    entries: list[DepthEvidence] = []
    for tap in taps:
        asked = replace(latent, tap=tap, tap_dim=widths[tap], weight=1.0)
        found = [probe_of.run(denoiser, asked, number) for number in range(runs)]
        gain = [before - after.denoising for before, after in zip(plain, found, strict=True)]
        excess, excess_error = _mean_and_error([run.excess for run in found])
        gained, gain_error = _mean_and_error(gain)
        seen = tuple(_average(list(looked)) for looked in zip(*(run.looks for run in found), strict=True))
        verdict = _verdict(excess, excess_error, gained, gain_error, seen)
        entries.append(DepthEvidence(tap, widths[tap], excess, excess_error, gained, gain_error, seen, verdict))
    plain_loss = torch.stack(plain).mean().item()
    return _decide(tuple(entries), plain_loss, steps * batch_size(train[0].x_0), runs, train[0].c is not None)


@dataclass(frozen=True)
class _Run:
    """What one run leaves: per held-out sample its denoising loss and excess energy, and looks along the way."""

    denoising: Float[Tensor, "s"]
    excess: Float[Tensor, "s"]
    looks: tuple[Look, ...]


@dataclass(frozen=True)
class _Probe:
    """The setting that all runs share."""

    process: Process
    train: tuple[Batch, ...]
    held_out: tuple[Batch, ...]
    steps: int
    share: float
    learning_rate: float
    looks: int
    seed: int

    def run(self, denoiser: nn.Module, latent: Latent | None, number: int) -> _Run:
        seed = mix_seed(self.seed, number)
        device = any_tensor(self.train[0].x_0).device
        network = copy.deepcopy(denoiser).train()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            objective = Objective(self.process, [] if latent is None else [latent]).to(device)
            parameters = [p for p in [*network.parameters(), *objective.parameters()] if p.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=0.0)
            order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed)).tolist()
            marks = {round(self.steps * part / self.looks) for part in range(self.looks + 1)}
            weight, samples, seen = 1.0, 0, []
            for step in range(self.steps + 1):
                if latent is not None and step in marks:
                    look = self._look(objective, network, samples)
                    weight = look.weight if math.isfinite(look.weight) and look.weight > 0 else weight
                    seen += [look] if step else []
                if step == self.steps:
                    break
                batch = self.train[order[step % len(order)]]
                size = batch_size(batch.x_0)
                noise = NoiseSource(seed, range(samples, samples + size))
                loss = objective(network, batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask, weight=batch.weight)
                # The objective's total holds the latent at weight 1.
                total = loss.total
                if latent is not None:
                    energy = loss.alignment[latent.name]
                    total = total + (weight - 1.0) * _weighted(energy, batch.weight)
                optimizer.zero_grad()
                total.backward()
                optimizer.step()
                samples += size
            denoising, excess = self._evaluate(objective, network, latent)
        return _Run(denoising, excess, tuple(seen))

    def _look(self, objective: Objective, network: nn.Module, samples: int) -> Look:
        batches = self.held_out[:_LOOK_BATCHES]
        table = gradient_table(objective, network, [], batches, seed=mix_seed(self.seed, 1 << 20))
        found = table.reached
        cosine, spread = found.cosine.item(), found.cosine_spread.item()
        ratio = found.denoising.item() / found.alignment.item() if found.alignment.item() > 0 else math.nan
        error = spread / table.batches**0.5 if table.batches > 1 else math.inf
        return Look(samples, cosine, error, self.share / (1.0 - self.share) * ratio)

    @torch.no_grad()
    def _evaluate(self, objective: Objective, network: nn.Module, latent: Latent | None) -> tuple[Tensor, Tensor]:
        losses, gaps, first = [], [], 0
        seed = mix_seed(self.seed, 1 << 21)
        with watched(network, objective):
            for batch in self.held_out:
                size = batch_size(batch.x_0)
                loss = gap = torch.zeros(size, dtype=torch.float64)
                for _ in range(_DRAWS):
                    positions = range(first, first + size)
                    first += size
                    pairs = [{}] if latent is None else _pairs(batch, latent)
                    found = [
                        objective(network, batch.x_0, NoiseSource(seed, positions), z=z, c=batch.c, mask=batch.mask)
                        for z in pairs
                    ]
                    loss = loss + found[0].denoising.double().cpu() / _DRAWS
                    if latent is not None:
                        own, other = (one.alignment[latent.name].double().cpu() for one in found)
                        gap = gap + (other - own) / _DRAWS
                losses.append(loss)
                gaps.append(gap)
        return torch.cat(losses), torch.cat(gaps)


def _pairs(batch: Batch, latent: Latent) -> list[dict[str, Representation]]:
    """z, and the z of the next sample, both known at the same elements only."""
    value = representation(batch, latent.name)
    known = value.mask
    if known is None and batch.mask is not None and value.z.ndim > 2 - (not value.z.is_floating_point()):
        known = batch.mask
    if not value.z.is_floating_point():
        inside = value.z >= 0
        known = inside if known is None else known.view(*known.shape, *([1] * (inside.ndim - known.ndim))) & inside
    if known is not None:
        known = known & known.roll(1, 0)
    return [{latent.name: Representation(z, known)} for z in (value.z, value.z.roll(1, 0))]


def _widths(denoiser: nn.Module, taps: Sequence[str], batch: Batch) -> dict[str, int]:
    with torch.no_grad(), watched(denoiser), Tap(denoiser, taps) as tap:
        size = batch_size(batch.x_0)
        denoiser(batch.x_0, torch.full((size,), 0.5, device=any_tensor(batch.x_0).device), batch.c)
        return {path: tap[path].shape[-1] for path in taps}


def _verdict(excess: float, excess_error: float, gain: float, gain_error: float, looks: Sequence[Look]) -> str:
    if not excess > _INFORMATION * excess_error:
        return "no evidence that z says anything about x"
    if gain < -_DOUBT * gain_error:
        return "raises the denoising loss"
    cosine, error = _early_cosine(looks)
    if not cosine > -_DOUBT * error:
        return "gradients oppose each other from the start"
    return "candidate"


def _decide(
    entries: tuple[DepthEvidence, ...], plain_loss: float, samples: int, runs: int, conditioned: bool
) -> Recommendation:
    caveats = [f"a probe of {samples} samples: depth, weight and stop time may differ later; look again along the run"]
    if runs == 1:
        caveats.append("one run: the errors of the gains leave out how runs differ")
    if conditioned:
        caveats.append("there is a condition: what the readout says of z may come from it, not from x (THEORY D8)")
    candidates = [entry for entry in entries if entry.verdict == "candidate"]
    if not candidates:
        told = any(entry.excess > _INFORMATION * entry.excess_error for entry in entries)
        reason = "no depth lowers the loss without conflict" if told else "no evidence that z says anything about x"
        return Recommendation(None, 0.0, None, entries, plain_loss, (reason, *caveats))
    best = max(candidates, key=lambda entry: entry.gain)
    close = [
        entry
        for entry in candidates
        if entry.gain >= best.gain - _DOUBT * math.hypot(entry.gain_error, best.gain_error) or entry is best
    ]
    chosen = max(close, key=lambda entry: fmean(look.cosine for look in entry.looks))
    if len(close) > 1:
        caveats.append(f"{len(close)} depths are alike in denoising loss; the gradient cosine chose between them")
    if not chosen.gain > _DOUBT * chosen.gain_error:
        caveats.append("the denoising loss is not lower than without alignment beyond doubt, yet")
    stop = _stop(chosen.looks)
    if stop is None:
        caveats.append(f"the gradient cosine did not turn negative within {samples} samples: no stop time found")
    return Recommendation(chosen.tap, _median_weight(chosen.looks), stop, entries, plain_loss, tuple(caveats))


def _stop(looks: Sequence[Look]) -> float | None:
    opposed = [look.cosine < -_DOUBT * look.error for look in looks]
    for place in range(len(looks) - 1):
        if all(opposed[place:]):
            return float(looks[place].samples)
    return None


def _early_cosine(looks: Sequence[Look]) -> tuple[float, float]:
    early = looks[: max(1, len(looks) // 2)]
    return fmean(look.cosine for look in early), fmean(look.error for look in early)


def _median_weight(looks: Sequence[Look]) -> float:
    return median(look.weight for look in looks)


def _average(looks: list[Look]) -> Look:
    """One moment of several runs. Their batches are the same, so the error does not shrink with the runs."""
    return Look(
        looks[0].samples,
        fmean(look.cosine for look in looks),
        fmean(look.error for look in looks),
        fmean(look.weight for look in looks),
    )


def _mean_and_error(runs: Sequence[Float[Tensor, "s"]]) -> tuple[float, float]:
    """Mean, and its standard error over samples or over runs, whichever is larger."""
    values = torch.stack(list(runs))
    per_sample, per_run = values.mean(0), values.mean(1)
    error = (per_sample.std() / len(per_sample) ** 0.5).item()
    if len(per_run) > 1:
        error = max(error, (per_run.std() / len(per_run) ** 0.5).item())
    return values.mean().item(), error


def _weighted(values: Float[Tensor, "b"], weight: Tensor | None) -> Float[Tensor, ""]:
    if weight is None:
        return values.mean()
    weight = weight.to(values)
    return (values * weight).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)

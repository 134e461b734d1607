"""How well could z be read from x_t at best? The attainable cosine of each time, and a model's own beside it.

    ceiling(t) = E | E[z / |z| | x_t] |     (THEORY section 3)

is the largest expected cosine of any function of x_t. It falls with noise, so a loss that stops falling may have
arrived. For a data set of m samples the posterior over its members gives two figures, with u = z / |z|:

    upper = mean_j | sum_i w_i(x_t^j) u_i |                      exact when the data set is the whole distribution
    lower = mean_j <u_j, direction of sum_{i != j} w_i u_i>      leaves out the sample that x_t^j was made from

For a sample of a larger distribution they enclose the truth on average. Upper: the best function for m given samples
does at least as well on them as the best function for all. Lower: a predictor made from the other m - 1 samples does
no better on a new one than the best. The finite posterior memorises (upper tends to 1 as t -> 0, whatever m), and in
many dimensions the others explain x_t badly (lower is weak there): the gap between the two is what m samples cannot
tell. A probe of hidden states (`reed_core.diagnose.probe`) is one more lower bound, for the same reason.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from reed_core.diagnose.data import representation
from reed_core.diagnose.posterior import log_likelihood, posterior
from reed_core.diagnose.quiet import watched
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process.base import Process, expand_mask, masked_mean
from reed_core.readout import Readout
from reed_core.state import State, any_tensor, batch_size, map_state
from reed_core.train.data import Batch


@dataclass(frozen=True)
class AttainableCosine:
    """Bounds of the best expected cosine at each time.

    Standard errors are of another sample of the data of this size. That of `upper` is the one of <u_j, direction of
    sum_i w_i u_i>, which has the same mean as |sum_i w_i u_i|: at the best function, what a change of the function does
    to the mean vanishes, and the spread of the samples is left. Within these errors the bounds may cross.

    Attributes:
        times: t, [T].
        upper: The ceiling of these very samples, [T].
        lower: What the other samples say of each, [T].
        upper_error: Standard error of `upper`.
        lower_error: Standard error of `lower`.
    """

    times: Float[Tensor, "T"]
    upper: Float[Tensor, "T"]
    lower: Float[Tensor, "T"]
    upper_error: Float[Tensor, "T"]
    lower_error: Float[Tensor, "T"]


@dataclass(frozen=True)
class CosineByTime:
    """The mean cosine of a readout with z at each time.

    Attributes:
        times: t, [T].
        mean: Mean over samples of the mean over a sample's elements, [T].
        error: Its standard error over samples, [T].
    """

    times: Float[Tensor, "T"]
    mean: Float[Tensor, "T"]
    error: Float[Tensor, "T"]


@torch.no_grad()
def attainable_cosine(
    process: Process,
    x_0: State,
    z: Representation,
    times: Sequence[float],
    noise: NoiseSource,
    mask: State = None,
    group: Int[Tensor, "m"] | None = None,
    draws: int = 1,
    chunk: int = 256,
) -> AttainableCosine:
    """The best attainable cosine between z and a function of x_t, from both sides.

    Args:
        process: The forward process; it needs a `log_likelihood`.
        x_0: Samples, [m, ...].
        z: Their representations, [m, ..., d]; means are over a sample's known elements, then over samples.
        times: The times asked about.
        noise: One stream per sample.
        mask: True where an element exists, [m, n], or a mapping by field, of which z has the first. A denoiser sees
            it, so only samples of the same mask compete.
        group: What else a denoiser is told of a sample (its class), as a number; only samples of a group compete.
        draws: Corruptions of each sample at each time.
        chunk: Samples looked at together.

    Raises:
        InputError: If the process has no likelihood, or the sizes do not fit.
    """
    count = batch_size(x_0)
    if len(noise) != count or len(z.z) != count or count < 2 or draws < 1:
        raise InputError(
            f"{count} samples, {len(z.z)} representations, {len(noise)} noise streams, {draws} draws; expected as many "
            "of each, two or more, and at least one draw"
        )
    _check_vectors(z)
    fields = list(mask.values()) if isinstance(mask, Mapping) else [mask]
    masks = [field for field in fields if field is not None]
    known = _known(z, masks[0] if masks else None)
    u = F.normalize(torch.where(known[..., None], z.z.double(), 0.0), dim=-1)
    members = _flat_members(u, known)
    alike = torch.ones(count, count, dtype=torch.bool, device=u.device)
    for field in masks:
        alike &= (field.flatten(1)[:, None] == field.flatten(1)).all(-1)
    if group is not None:
        alike &= group[:, None] == group
    clean = _without_padding(x_0, mask)
    own = torch.arange(count, device=u.device)
    columns = []
    for time in times:
        at = torch.full((count,), time, dtype=torch.float32, device=any_tensor(x_0).device)
        found = u.new_zeros(3, count)
        for _ in range(draws):
            x_t = _without_padding(process.corrupt(x_0, at, noise, mask).x_t, mask)
            parts = []
            for rows in own.split(chunk):
                scores = log_likelihood(process, map_state(lambda x, rows=rows: x[rows], x_t), clean, float(at[0]))
                scores, possible = scores.to(u.device), alike[rows]
                with_own = members.expectation(posterior(scores, possible))
                without = members.expectation(posterior(scores, possible & (own != rows[:, None])))
                best = with_own.norm(dim=-1)
                own_cosine, others = ((F.normalize(mean, dim=-1) * u[rows]).sum(-1) for mean in (with_own, without))
                parts.append(torch.stack([masked_mean(value, known[rows]) for value in (best, own_cosine, others)]))
            found = found + torch.cat(parts, 1) / draws
        columns.append(found)
    best, own_cosine, others = torch.stack(columns, 1).cpu()
    return AttainableCosine(
        times=torch.tensor(list(times), dtype=torch.float64),
        upper=best.mean(1),
        lower=others.mean(1),
        upper_error=_error(own_cosine),
        lower_error=_error(others),
    )


@torch.no_grad()
def cosine_by_time(
    objective: Objective,
    denoiser: Callable[..., Any],
    name: str,
    batches: Iterable[Batch],
    times: Sequence[float],
    seed: int = 0,
) -> CosineByTime:
    """The cosine of z and what a latent's readout says of it, at each time; other latents stay hidden.

    Args:
        objective: The objective with the readout.
        denoiser: The network, put into evaluation mode for the duration.
        name: The latent.
        batches: Samples with their z, held out from training.
        times: The times asked about.
        seed: Seed of the corruption.
    """
    cosines: list[list[Tensor]] = [[] for _ in times]
    first = 0
    with watched(denoiser, objective):
        for batch in batches:
            size = batch_size(batch.x_0)
            noise, value = NoiseSource(seed, range(first, first + size)), representation(batch, name)
            first += size
            _check_vectors(value)
            known = _known(value, batch.mask)
            u = F.normalize(value.z.double(), dim=-1)
            for place, time in enumerate(times):
                t = torch.full((size,), time, device=any_tensor(batch.x_0).device)
                x_t = objective.process.corrupt(batch.x_0, t, noise, batch.mask).x_t
                hidden = objective.hidden(denoiser, [name], x_t, t, batch.c)[name]
                told = cast(Readout, objective.readouts[name]).predict(
                    hidden, batch.mask, {}, tuple(value.z.shape[1:-1])
                )
                cosine = (F.normalize(told.to(u), dim=-1) * u).sum(-1)
                cosines[place].append(masked_mean(cosine, known))
    mean, error = _summary([torch.cat(parts) for parts in cosines])
    return CosineByTime(torch.tensor(list(times), dtype=torch.float64), mean, error)


@dataclass(frozen=True)
class _Members:
    """Unit vectors of all samples, flattened, so that an expectation is one product."""

    u: Float[Tensor, "m e"]
    known: Float[Tensor, "m k"]
    shape: torch.Size

    def expectation(self, weights: Float[Tensor, "q m"]) -> Tensor:
        """E[u | x_t] over the members whose u is known, element by element, [q, ..., d]."""
        total = (weights @ self.u).view(len(weights), *self.shape[1:])
        mass = (weights @ self.known).view(len(weights), *self.shape[1:-1], 1)
        return total / mass.clamp(min=1e-300)


def _check_vectors(value: Representation) -> None:
    if not value.z.is_floating_point():
        raise InputError("z holds class indices, which have no cosine; give one-hot vectors")


def _flat_members(u: Tensor, known: Tensor) -> _Members:
    return _Members(u.flatten(1), known.double().reshape(len(u), -1), u.shape)


def _known(value: Representation, mask: Tensor | None) -> Bool[Tensor, "b ..."]:
    leading = value.z.shape[:-1]
    if value.mask is not None:
        return value.mask.to(value.z.device)
    if mask is None or len(leading) == 1:
        return torch.ones(leading, dtype=torch.bool, device=value.z.device)
    return mask.to(value.z.device).view(*mask.shape, *([1] * (len(leading) - mask.ndim))).expand(leading)


def _without_padding(x: State, mask: State) -> State:
    def kept(field: Tensor, inside: Tensor | None) -> Tensor:
        return field if inside is None else torch.where(expand_mask(inside, field), field, torch.zeros_like(field))

    if isinstance(x, Mapping) and not isinstance(mask, Mapping):
        mask = dict.fromkeys(x, mask)
    return map_state(kept, x, mask) if mask is not None else x


def _summary(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    stacked = torch.stack(values).double().cpu()
    return stacked.mean(1), _error(stacked)


def _error(values: Float[Tensor, "T m"]) -> Float[Tensor, "T"]:
    return values.std(1) / values.shape[1] ** 0.5

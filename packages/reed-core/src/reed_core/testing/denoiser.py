"""`check_denoiser`, `check_no_leak`: does a network answer for each sample alone, and is no answer told to it?

With explicit latents the denoiser is told z, and its head is asked for z: where the head reads behind the place of the
telling, it learns to copy, and its loss says nothing about p(z | x_t) (THEORY section 1, D14).
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.latent import Representation, Representations, Revealed
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.state import State, batch_size
from reed_core.testing import measure
from reed_core.testing.measure import require, require_same

Take = Callable[[Any, slice], Any]


def take(c: Any, index: slice) -> Any:
    """Part of a condition's samples: tensors by their first axis, in mappings, tuples and lists too; the rest whole."""
    if isinstance(c, Tensor) and c.ndim:
        return c[index]
    if isinstance(c, Mapping):
        return {name: take(value, index) for name, value in c.items()}
    if isinstance(c, (tuple, list)):
        return type(c)(take(value, index) for value in c)
    return c


def check_denoiser(
    denoiser: Callable[..., State],
    x_t: State,
    t: Float[Tensor, "b"],
    c: Any = None,
    mask: State = None,
    *,
    z: Representations | None = None,
    outputs: int | None = None,
    take: Take = take,
    most: float = 1e-4,
) -> None:
    """Checks a denoiser on one batch.

    Args:
        denoiser: Called as `denoiser(x_t, t, c)`, and with `z=` when `z` is given. In evaluation mode.
        x_t: Corrupted data, at least two samples.
        t: Times.
        c: The condition; a network that mixes elements finds the mask of x_t in it.
        mask: True where an element exists; padding of x_t is then filled with junk, which must not be seen.
        z: Values of explicit latents, for a conditional denoiser.
        outputs: Number of classes predicted for each token, when x_t holds tokens.
        take: `take(c, index)` returns the condition of some samples; the default knows tensors, mappings and tuples.
        most: Largest difference, relative to 1 + |prediction|, that counts as none.

    Raises:
        AssertionError: With one line, if something is wrong.
    """
    size = batch_size(x_t)
    require(size >= 2, "check_denoiser needs a batch", f"{size} samples", "at least 2")
    told = {} if z is None else {"z": _reveal(z, None)}
    with torch.no_grad():
        found = denoiser(x_t, t, c, **told)
        _check_form(found, x_t, outputs, mask)
        again = denoiser(x_t, t, c, **told)
        require_same(again, found, "one batch twice", "the same prediction (evaluation mode?)", mask, most)
        junk = denoiser(measure.spoiled(x_t, mask, 9.0), t, c, **told)
        require_same(junk, found, "prediction with junk in the padding of x_t", "the same prediction", mask, most)
        for sample in range(size):
            one = slice(sample, sample + 1)
            part = {} if z is None else {"z": _reveal(z, None, one)}
            alone = denoiser(measure.rows(x_t, one), t[one], take(c, one), **part)
            what = f"prediction for sample {sample} alone and in a batch"
            kept = None if mask is None else measure.rows(mask, one)
            require_same(alone, measure.rows(found, one), what, "no difference", kept, most)
        if z is not None:
            _check_null(denoiser, x_t, t, c, mask, z, most)


def _check_form(found: State, x_t: State, outputs: int | None, mask: State) -> None:
    said = measure.tensors(found)
    require(set(said) == set(measure.tensors(x_t)), "fields of the prediction", sorted(said), "those of x_t")
    for name, value in measure.tensors(x_t).items():
        title = " ".join(filter(None, ["prediction", name]))
        shape, dtype = tuple(said[name].shape), said[name].dtype
        if value.is_floating_point():
            require(shape == tuple(value.shape), f"{title}, shape", shape, str(tuple(value.shape)))
            require(dtype == value.dtype, f"{title}, dtype", str(dtype), str(value.dtype))
        else:
            require(
                shape[:-1] == tuple(value.shape), f"{title}, shape", shape, f"{tuple(value.shape)} and one axis more"
            )
            require(dtype.is_floating_point, f"{title}, dtype", str(dtype), "logits")
            require(outputs in (None, shape[-1]), f"{title}, classes", shape[-1], str(outputs))
    require(
        bool(measure.own(found, mask).isfinite().all()), "prediction", "a number that is not finite", "finite numbers"
    )


def _check_null(
    denoiser: Callable[..., State], x_t: State, t: Tensor, c: Any, mask: State, z: Representations, most: float
) -> None:
    size = batch_size(x_t)
    null = denoiser(x_t, t, c)
    hidden = torch.zeros(size, dtype=torch.bool)
    for name, said in {"z=None": None, "z={}": {}, "no z shown": _reveal(z, hidden)}.items():
        what, expected = f"prediction with {name} and with z left out", "the same: the null token of every latent"
        require_same(denoiser(x_t, t, c, z=said), null, what, expected, mask, most)
    other = {name: Representation(_other(value.z), value.mask) for name, value in z.items()}
    found = denoiser(x_t, t, c, z=_reveal(other, hidden))
    require_same(found, null, "prediction with other values of a z that is not shown", "the same", mask, most)
    every = denoiser(x_t, t, c, z=_reveal(z, None))
    some = denoiser(x_t, t, c, z=_reveal(z, torch.arange(size) % 2 == 0))
    for sample in range(size):
        one, title = slice(sample, sample + 1), "shown" if sample % 2 == 0 else "not shown"
        kept = None if mask is None else measure.rows(mask, one)
        expected = measure.rows(every if sample % 2 == 0 else null, one)
        what = f"prediction for sample {sample}, whose z is {title}, in a mixed batch"
        require_same(measure.rows(some, one), expected, what, f"as if all were {title}", kept, most)


def _reveal(z: Representations, shown: Tensor | None, index: slice = slice(None)) -> dict[str, Revealed]:
    return {
        name: Revealed(
            value.z[index],
            None if value.mask is None else value.mask[index],
            None if shown is None else shown[index].to(value.z.device),
        )
        for name, value in z.items()
    }


def _other(value: Tensor) -> Tensor:
    """Other values of the same kind: classes turned over within their range, numbers moved."""
    return value.roll(1, 0) * 1.7 + 0.3 if value.is_floating_point() else value.max() + value.min() - value


def check_no_leak(
    objective: Objective,
    denoiser: nn.Module,
    x_0: State,
    z: Representations,
    c: Any = None,
    mask: State = None,
    *,
    most: float = 1e-5,
    seed: int = 0,
) -> None:
    """Checks that the loss of each explicit latent's head does not depend on what the denoiser is told of that latent.

    It is done on copies, in which parameters that are all zero (as adapters start) get random values, and z is shown
    to every sample.

    Args:
        objective: With at least one explicit latent of positive weight.
        denoiser: The conditional denoiser.
        x_0: Clean data.
        z: Values of all latents.
        c: The condition.
        mask: True where an element exists.
        most: Largest difference of the alignment loss that counts as none.
        seed: Of all random numbers.

    Raises:
        AssertionError: With one line, if something is wrong.
    """
    require(len(objective.explicit) > 0, "check_no_leak", "no explicit latent", "at least one")
    awake, asking = _awake(denoiser, seed), copy.deepcopy(objective).eval()
    question = objective.draw(x_0, NoiseSource(seed, range(batch_size(x_0))), z=z, c=c, mask=mask)
    require(question.told is not None, "check_no_leak", "an objective that tells nothing", "explicit latents")
    told = {name: Revealed(value.z, value.mask) for name, value in (question.told or {}).items()}
    with torch.no_grad():
        try:
            loss = asking.loss(awake, replace(question, told=told))
        except InputError as error:  # a network of `Injected` says itself where z entered
            raise AssertionError(f"check_no_leak: measured a refusal ({error}), expected a loss") from error
        for latent in objective.explicit:
            name = latent.name
            if name not in loss.alignment:
                continue
            other = {**told, name: Revealed(_other(told[name].z), told[name].mask)}
            changed = asking.loss(awake, replace(question, told=other))
            gap = measure.apart(changed.alignment[name], loss.alignment[name])
            said = f"a change by {gap:.3g}"
            where = f"none: read upstream of the injection ('{latent.tap}' is not), or set head_pass='null'"
            require(gap <= most, f"alignment loss of '{name}' when the denoiser is told another {name}", said, where)


def _awake(denoiser: nn.Module, seed: int) -> nn.Module:
    twin = copy.deepcopy(denoiser).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if not parameter.any():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return twin

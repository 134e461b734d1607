"""Draws molecules: numbers of atoms, then the reverse chain, in batches of similar size.

Every random number of sample i is keyed by (seed, i), so a sample is the same alone, in any batch, and when more
samples are drawn after it (up to the rounding of the network, which a batch's shape may change). A part of every sample
may be given (`inpaint`): the chain leads to it. Properties may be asked for, with classifier-free guidance
(`reed_core.sample.guidance`): coordinates and logits go along the same line, and with self-conditioning each side is
given its own last prediction, as in training.

Steps shorten towards data (`GRID`), where elements and bonds are decided. A temperature below 1 draws types, charges
and bonds nearer to the likeliest.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from reed_core.errors import InputError
from reed_core.noise import NoiseSource, mix_seed
from reed_core.process.base import expand_mask
from reed_core.sample import ClassifierFree, PowerTimes
from torch import Tensor

from reed_molecule.condition import Condition
from reed_molecule.flow import Sampler, sampled_by, sampler_for
from reed_molecule.inpaint import Given, chain, check_temperature
from reed_molecule.model import MoleculeModel, Remembering
from reed_molecule.part import State

MOST_PAIRS = 60_000
MOST_SAMPLES = 128
MOST_PADDED = 1.25  # pairs of a batch's largest molecule over those of its smallest
GRID = PowerTimes(2.0)
_SIZE, _PRIOR, _CHAIN = range(3)

Watch = Callable[[tuple[int, ...], float, State], None]


@dataclass(frozen=True)
class Drawn:
    """Samples of similar size.

    Attributes:
        numbers: The number of each sample.
        state: `coords` [b, n, 3] in model units, centred; `types`, `charges` [b, n]; `bonds` [b, n, n].
        mask: Where each field exists, of the form of the state, as `build.to_molecules` takes it.
    """

    numbers: tuple[int, ...]
    state: Mapping[str, Tensor]
    mask: Mapping[str, Tensor]


@dataclass(frozen=True)
class _Way:
    """How every sample of a call is drawn; attributes as the arguments of `sample`."""

    steps: int
    seed: int
    given: Given | None
    resample: int
    watch: Watch | None
    sampler: Sampler
    guidance: float
    temperature: float
    properties: Mapping[str, float] = field(default_factory=dict)


def sample(
    model: MoleculeModel,
    count: int | None = None,
    *,
    sizes: Sequence[int] | None = None,
    steps: int = 100,
    seed: int = 0,
    first: int = 0,
    progress: Callable[[int], None] | None = None,
    given: Given | None = None,
    resample: int = 1,
    watch: Watch | None = None,
    properties: Mapping[str, float] | None = None,
    guidance: float = 1.0,
    sampler: Sampler | None = None,
    temperature: float = 1.0,
) -> list[Drawn]:
    """Draws molecules.

    Args:
        model: The model, in evaluation mode.
        count: How many; their numbers of atoms come from the training histogram.
        sizes: Numbers of atoms instead, one for each sample.
        steps: Steps, and evaluations, of each sample.
        seed: Of all random numbers.
        first: The number of the first sample, to go on where an earlier call ended.
        progress: Called after each batch with the number of its samples.
        given: What is known of the first atoms of every sample.
        resample: How often each step is taken, so that the rest adapts to what is given.
        watch: Called before every step with the numbers of a batch, the time and the state.
        properties: Values asked of every sample by name, in the units of the training data; those left out are open.
        guidance: How strongly they are followed: 1 as learned, 0 not at all, more for more, at two evaluations a step.
        sampler: How the coordinates move (`flow`); None takes what the weights were trained for.
        temperature: Divides the logits of types, charges and bonds, above 0; 1 draws from the model.

    Returns:
        Batches by growing size; each sample carries its number.

    Raises:
        InputError: If not exactly one of `count` and `sizes` is given, one is out of range, steps < 1, the model is not
            told a property, or guidance has none.
    """
    if (count is None) == (sizes is None):
        raise InputError("give either the number of samples or their numbers of atoms, not both and not neither")
    if (count is not None and count < 0) or (sizes is not None and any(size < 1 for size in sizes)):
        raise InputError("expected 0 or more samples, each of 1 or more atoms")
    check_guidance(properties or {}, guidance)
    check_temperature(temperature)
    chosen = sampler or sampler_for(model.config.alignment)
    way = _Way(steps, seed, given, resample, watch, chosen, guidance, temperature, properties or {})
    if sizes is None:
        sizes = model.draw_sizes(range(first, first + (count or 0)), mix_seed(seed, _SIZE))
    order = sorted(range(len(sizes)), key=lambda place: sizes[place])
    out = []
    for places in _batches(order, sizes):
        batch = [sizes[place] for place in places]
        numbers = [first + place for place in places]
        out.append(_draw(model, numbers, batch, way))
        if progress is not None:
            progress(len(places))
    return out


def _batches(order: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Cuts places sorted by size into batches of bounded cost and little padding."""
    batches: list[list[int]] = []
    for place in order:
        batch = batches[-1] if batches else []
        pairs = sizes[place] ** 2
        if batch and (
            len(batch) < MOST_SAMPLES
            and (len(batch) + 1) * pairs <= MOST_PAIRS
            and pairs <= MOST_PADDED * sizes[batch[0]] ** 2
        ):
            batch.append(place)
        else:
            batches.append([place])
    return batches


def check_guidance(properties: Mapping[str, float], guidance: float) -> None:
    """Checks that guidance has something to follow.

    Raises:
        InputError: If it has not, or is no finite number.
    """
    if not math.isfinite(guidance):
        raise InputError(f"guidance {guidance}: expected a finite number, 1 for none")
    if guidance != 1.0 and not properties:
        raise InputError(f"guidance {guidance:g} without a property to follow; give one, or leave guidance out")


def _denoiser(model: MoleculeModel, null: Condition, guidance: float) -> Any:
    """The model that remembers its last prediction, guided if asked for."""
    told, untold = Remembering(model), Remembering(model)
    if guidance == 1.0:
        return told
    return ClassifierFree(lambda x_t, t, c: (untold if c is null else told)(x_t, t, c), null, guidance)


def _draw(model: MoleculeModel, numbers: list[int], sizes: list[int], way: _Way) -> Drawn:
    weight = next(model.parameters())
    b, n = len(sizes), max(sizes)
    exists = torch.arange(n) < torch.tensor(sizes)[:, None]
    told = model.condition(exists.to(weight.device), way.properties)
    whole = torch.zeros(b, n, dtype=torch.long, device=weight.device)
    like = {
        "coords": torch.zeros(b, n, 3, dtype=weight.dtype, device=weight.device),
        "types": whole,
        "charges": whole,
        "bonds": torch.zeros(b, n, n, dtype=torch.long, device=weight.device),
    }
    process, masks = sampled_by(model.process, way.sampler), told.masks()
    x = process.prior(like, NoiseSource(mix_seed(way.seed, _PRIOR), numbers), masks)
    watch = way.watch
    if way.given is not None:
        told = replace(told, part=way.given.part(like, told))
    x = chain(
        process,
        _denoiser(model, told.null, way.guidance),
        x,
        way.steps,
        NoiseSource(mix_seed(way.seed, _CHAIN), numbers),
        told,
        resample=way.resample,
        watch=None if watch is None else lambda time, state: watch(tuple(numbers), time, state),
        grid=GRID,
        temperature=way.temperature,
    )
    kept = {name: torch.where(expand_mask(masks[name], value), value, 0) for name, value in x.items()}
    return Drawn(tuple(numbers), kept, masks)

"""Which depth knows z? Alignment of hidden states with z over depth and time, for any torch module.

Nothing is trained but linear probes: a partly trained network, or a finished one, is looked at as it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.denoiser import Tap
from reed_core.diagnose.alignment import cka, cknna, unit_rows
from reed_core.diagnose.data import Rows, as_vectors, representation, rows
from reed_core.diagnose.probe import probe
from reed_core.diagnose.quiet import watched
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import Process
from reed_core.state import any_tensor, batch_size
from reed_core.train.data import Batch


@dataclass(frozen=True)
class DepthTable:
    """Alignment with z of each tap (first axis) at each time (second axis).

    Attributes:
        taps: Module paths, K of them.
        times: t, [T].
        cka: Debiased linear CKA, about 0 without relation.
        cknna: CKNNA of centred rows of unit length (the paper's definition).
        probe: Cosine of a linear probe with z on unseen samples: a lower bound of the attainable cosine.
        probe_error: Its standard error.
        constant: The cosine of a constant prediction, [T]; the excess over it is what the hidden state says.
        rows: Number of rows compared.
    """

    taps: tuple[str, ...]
    times: Float[Tensor, "T"]
    cka: Float[Tensor, "K T"]
    cknna: Float[Tensor, "K T"]
    probe: Float[Tensor, "K T"]
    probe_error: Float[Tensor, "K T"]
    constant: Float[Tensor, "T"]
    rows: int


@torch.no_grad()
def by_depth(
    denoiser: nn.Module,
    process: Process,
    taps: Sequence[str],
    name: str,
    batches: Iterable[Batch],
    times: Sequence[float],
    seed: int = 0,
    k: int = 10,
    over: Literal["samples", "elements"] = "samples",
    limit: int = 4096,
    classes: int = 0,
) -> DepthTable:
    """CKA, CKNNA and a linear probe of z from the hidden states of every tap at every time.

    Args:
        denoiser: The network, called as `denoiser(x_t, t, c)`; in evaluation mode for the duration.
        process: The forward process.
        taps: Module paths, as `Tap` takes them (`block_paths` finds the blocks).
        name: The latent's name in the batches.
        batches: Samples with their z; a few hundred or more.
        times: The times asked about.
        seed: Seed of the corruption.
        k: Neighbours of CKNNA.
        over: "samples" compares means over each sample's elements; "elements" compares tokens (or pairs) one by one.
        limit: Most rows to compare; evenly spaced rows are taken (kernels are rows x rows).
        classes: Number of classes when z holds class indices.

    Raises:
        InputError: If a tap does not exist, or there are too few samples.
    """
    found: dict[tuple[str, int], list[Rows]] = {(tap, place): [] for tap in taps for place in range(len(times))}
    first = 0
    with watched(denoiser):
        for batch in batches:
            size = batch_size(batch.x_0)
            noise, value = (
                NoiseSource(seed, range(first, first + size)),
                as_vectors(representation(batch, name), classes),
            )
            for place, time in enumerate(times):
                t = torch.full((size,), time, device=any_tensor(batch.x_0).device)
                x_t = process.corrupt(batch.x_0, t, noise, batch.mask).x_t
                with Tap(denoiser, taps) as tap:
                    denoiser(x_t, t, batch.c)
                for path in taps:
                    found[path, place].append(rows(tap[path], value, batch.mask, over, first))
            first += size
    if first == 0 or not taps or not times:
        raise InputError(f"{len(taps)} taps, {len(times)} times and {first} samples; give one or more of each")
    shape = (len(taps), len(times))
    cka_, cknna_, probe_, error, constant = (torch.zeros(shape, dtype=torch.float64) for _ in range(5))
    count = 0
    for depth, path in enumerate(taps):
        for place in range(len(times)):
            hidden, z, sample = _thinned(found[path, place], limit)
            count = len(z)
            read = probe(hidden, z, sample)
            cka_[depth, place] = cka(hidden, z, debiased=True)
            cknna_[depth, place] = cknna(unit_rows(hidden), unit_rows(z), k)
            probe_[depth, place], error[depth, place], constant[depth, place] = read.cosine, read.error, read.constant
    when = torch.tensor(list(times), dtype=torch.float64)
    return DepthTable(tuple(taps), when, cka_, cknna_, probe_, error, constant[0], count)


def block_paths(denoiser: nn.Module) -> tuple[str, ...]:
    """The paths of a network's blocks: the children of its longest list of modules of one class.

    Raises:
        InputError: If no list has two modules of one class, or two lists are the longest.
    """
    lists: list[list[str]] = []
    for path, module in getattr(denoiser, "_orig_mod", denoiser).named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len({type(child) for child in module}) == 1:
            lists.append([f"{path}.{number}" if path else str(number) for number in range(len(module))])
    longest = max(map(len, lists), default=0)
    best = [paths for paths in lists if len(paths) == longest]
    if longest < 2 or len(best) > 1:
        names = ", ".join(paths[0].rpartition(".")[0] or "the network itself" for paths in best)
        raise InputError(
            f"cannot tell the blocks of a {type(denoiser).__name__} ({names or 'no list'}); name the paths"
        )
    return tuple(best[0])


def _thinned(parts: list[Rows], limit: int) -> Rows:
    hidden, z, sample = (torch.cat(column) for column in zip(*parts, strict=True))
    if len(z) <= limit:
        return Rows(hidden, z, sample)
    kept = torch.linspace(0, len(z) - 1, limit, dtype=torch.float64).round().long()
    return Rows(hidden[kept], z[kept], sample[kept])

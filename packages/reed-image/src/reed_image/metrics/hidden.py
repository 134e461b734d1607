"""Hidden states of a trained network on real pictures: which classes they tell, and how near they are to an encoder.

For each tap (depth) and diffusion time t: x_t of the pictures' latents (means, and one noise for each picture), the
network without a condition, as a class it is told would be read off again, and the mean of its tokens h. Of these

    accuracy   of a linear classifier on pictures it has not seen (`reed_image.metrics.linear_probe`)
    CKNNA      with an encoder's features, centred rows of unit length (`reed_core.diagnose.alignment`), k = 10
    CKA        debiased, likewise
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from reed_core.denoiser import Tap
from reed_core.diagnose import cka, cknna, unit_rows
from reed_core.diagnose.quiet import watched
from reed_core.errors import InputError
from reed_core.latent import pool_tokens
from reed_core.noise import NoiseSource
from torch import Tensor

from reed_image.data import Prepared
from reed_image.data.source import UNLABELLED
from reed_image.metrics.linear_probe import LinearProbe, linear_probe
from reed_image.model import ImageModel

MOST = 4096  # pictures whose kernels, n x n, are compared


class HiddenRow(NamedTuple):
    """What one depth knows at one time.

    Attributes:
        tap: Module path.
        time: t; 0 is data.
        probe: Classes read linearly; None without labels.
        cknna: By name of the encoder.
        cka: Likewise.
    """

    tap: str
    time: float
    probe: LinearProbe | None
    cknna: dict[str, float]
    cka: dict[str, float]


@torch.no_grad()
def hidden_states(
    model: ImageModel,
    prepared: Prepared,
    items: Sequence[int],
    taps: Sequence[str],
    times: Sequence[float],
    seed: int = 0,
    batch: int = 64,
    progress: Callable[[int], Any] | None = None,
) -> dict[tuple[str, float], Float[Tensor, "n w"]]:
    """The mean token of each picture, by tap and time, on the CPU.

    Args:
        model: The network.
        prepared: Pictures prepared for it.
        items: Which of them.
        taps: Module paths, as `blocks.3`.
        times: Diffusion times.
        seed: Seeds the noise; picture i gets the same whatever the batch.
        batch: Pictures at once.
        progress: Called with the number of pictures of each batch.

    Raises:
        InputError: If the pictures are not what the network takes, a tap does not exist, or a time is out of range.
    """
    _check(model, prepared, taps, times)
    device, process = next(model.parameters()).device, model.process
    found: dict[tuple[str, float], list[Tensor]] = {(tap, time): [] for tap in taps for time in times}
    with watched(model):
        for start in range(0, len(items), batch):
            some = list(items[start : start + batch])
            x_0 = prepared.latents(some).to(device)
            for time in times:
                t = torch.full((len(some),), time, device=device)
                with Tap(model, taps) as tap:
                    model(process.corrupt(x_0, t, NoiseSource(seed, some)).x_t, t, None)
                for path in taps:
                    state = tap[path].float()
                    found[path, time].append((state if state.ndim == 2 else pool_tokens(state, None)).cpu())
            if progress is not None:
                progress(len(some))
    return {key: torch.cat(parts) for key, parts in found.items()}


def compare_hidden(
    states: dict[tuple[str, float], Float[Tensor, "n w"]],
    labels: Tensor,
    features: dict[str, Float[Tensor, "n d"]],
    seed: int = 0,
) -> list[HiddenRow]:
    """Reads classes from hidden states, and compares them with features of the same pictures.

    Args:
        states: As of `hidden_states`.
        labels: Class of each picture, -1 without.
        features: Features of the pictures, by name of the encoder.
        seed: Seeds which pictures are kept apart.
    """
    known = labels != UNLABELLED
    count = len(labels)
    kept = torch.linspace(0, count - 1, min(count, MOST), dtype=torch.float64).round().long()
    targets = {name: unit_rows(values[kept]) for name, values in features.items()}
    rows = []
    for (tap, time), state in states.items():
        read = linear_probe(state[known], labels[known], seed) if bool(known.any()) else None
        own = unit_rows(state[kept])
        near = {name: cknna(own, target) for name, target in targets.items()}
        rows.append(HiddenRow(tap, time, read, near, {n: cka(own, z, debiased=True) for n, z in targets.items()}))
    return rows


def _check(model: ImageModel, prepared: Prepared, taps: Sequence[str], times: Sequence[float]) -> None:
    shape, made = tuple(prepared.mean.shape[2:]), prepared.manifest.autoencoder
    if shape != model.shape:
        raise InputError(f"{prepared.folder} holds x of {list(shape)}, the network takes {list(model.shape)}")
    if model.config.joint is not None:
        raise InputError(f"the network diffuses {model.config.joint.name} beside x; hidden states are of x alone")
    own = model.config.autoencoder
    hashes = set() if own is None else {own.weights, made.weights} - {""}
    if own is not None and (len(hashes) > 1 or (own.shift, own.scale) != (made.shift, made.scale)):
        raise InputError(f"{prepared.folder} was made with another autoencoder than the network's; prepare it again")
    if not taps or not times or not all(0.0 <= time <= 1.0 for time in times):
        raise InputError(f"{len(taps)} depths at times {list(times)}; expected one or more, times from 0 to 1")

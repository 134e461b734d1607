"""From a source of pictures to a folder of latents: once, before any training.

Pictures are read, cropped and encoded in batches of the source's order, and appended to growing files. A batch is the
same whether the run was interrupted or not, so a killed preparation goes on and ends with the same bytes. Memory is
that of a few batches. What cannot be used is counted under its reason, and its name is kept.
"""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from reed_core.errors import InputError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from reed_image.autoencoder.codec import Moments
from reed_image.autoencoder.model import Autoencoder, AutoencoderSpec
from reed_image.data.crop import Crop, square
from reed_image.data.image_file import UnusableError, read_rgb
from reed_image.data.manifest import MANIFEST, PROGRESS, Progress, Recipe, Stored
from reed_image.data.prepared import IMAGES, LABELS, MEAN, NAMES, SKIPPED, STD, Prepared, open_prepared
from reed_image.data.repa import read_moments
from reed_image.data.source import Picture, Source
from reed_image.data.writer import Read, Writer, statistics, sums

SD_LATENTS = AutoencoderSpec(
    name="stabilityai/sd-vae-ft-mse",
    kind="KlCodec",
    channels=4,
    factor=8,
    stochastic=True,
    shift=(0.0,) * 4,
    scale=(0.18215,) * 4,
    weights="",
)
_SAVE_EVERY = 20.0  # seconds


def prepare(
    source: Source,
    out: Path | str,
    autoencoder: Autoencoder | AutoencoderSpec,
    *,
    size: int,
    crop: Crop = "adm",
    flips: bool = False,
    images: bool = True,
    dtype: Stored = "float16",
    smallest: int | None = None,
    limit: int | None = None,
    batch: int = 64,
    fit: int = 0,
    workers: int = 0,
    progress: bool = True,
) -> Prepared:
    """Prepares pictures for training; goes on where an earlier call with the same arguments was interrupted.

    Args:
        source: The pictures.
        out: A folder; created. If it is finished already, it is opened.
        autoencoder: What makes the latents. For a source that has them, the description of what made them
            (`SD_LATENTS` for REPA's).
        size: Side of the pictures, in pixels.
        crop: How a picture becomes square.
        flips: Keep a mirrored copy of each.
        images: Keep the pictures, which encoders of representations need later (size^2 x 3 bytes each).
        dtype: Type of the stored latents.
        smallest: Shortest side accepted, in pixels; left out, a quarter of `size`.
        limit: At most this many pictures of the source.
        batch: Pictures encoded at once.
        fit: If not 0: the latents of the first `fit` usable pictures set the normalisation, to mean 0 and deviation 1
            in each channel.
        workers: Threads that read and crop; 0 for one per core, eight at most.
        progress: Show a progress bar on standard error.

    Returns:
        The prepared pictures.

    Raises:
        InputError: If the folder holds something else, the size does not fit the autoencoder, or nothing can be used.
    """
    out = Path(out)
    spec = autoencoder if isinstance(autoencoder, AutoencoderSpec) else autoencoder.spec
    spec.side(size)
    if flips and isinstance(autoencoder, AutoencoderSpec):
        raise InputError("latents made elsewhere cannot be mirrored; give the autoencoder, or leave flips out")
    if fit and isinstance(autoencoder, AutoencoderSpec):
        raise InputError("latents made elsewhere keep their normalisation; leave fit at 0")
    recipe = Recipe(
        source=source.fingerprint,
        size=size,
        crop=crop,
        flips=flips,
        images=images,
        dtype=dtype,
        smallest=max(2, size // 4) if smallest is None else smallest,
        limit=limit,
        batch=batch,
        fit=fit,
        autoencoder=spec,
    )
    if (out / MANIFEST).is_file():
        found = open_prepared(out)
        if found.manifest.recipe != recipe:
            raise InputError(f"{out} holds {_difference(found.manifest.recipe, recipe)}; choose another folder")
        return found
    state = _state(out, recipe)
    threads = workers or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool:
        if state is None:
            if fit:
                assert isinstance(autoencoder, Autoencoder)
                autoencoder = _fitted(source, autoencoder, recipe, pool)
            in_force = autoencoder if isinstance(autoencoder, AutoencoderSpec) else autoencoder.spec
            zeros = [0.0] * spec.channels
            state = Progress(recipe=recipe, autoencoder=in_force, first=zeros, second=list(zeros))
        elif isinstance(autoencoder, Autoencoder):
            held = state.autoencoder
            autoencoder = Autoencoder(autoencoder.name, autoencoder.codec, held.shift, held.scale, autoencoder.batch)
        total = len(source) if limit is None else min(limit, len(source))
        writer = Writer(out, state)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=Console(stderr=True), disable=not progress) as bar:
            task = bar.add_task("preparing", total=total, completed=state.position)
            saved = time.monotonic()
            for read in _batches(source, autoencoder, recipe, state.position, total, pool):
                writer.add(read, _encode(read, autoencoder, recipe))
                bar.update(task, completed=state.position)
                if time.monotonic() - saved > _SAVE_EVERY:
                    writer.save()
                    saved = time.monotonic()
    return writer.finish(source)


def _batches(
    source: Source, autoencoder: Any, recipe: Recipe, start: int, total: int, pool: ThreadPoolExecutor
) -> Iterator[list[Read]]:
    """Batches of the source, read ahead by one."""
    with_moments = isinstance(autoencoder, AutoencoderSpec)
    pictures = islice(source.pictures(start), total - start)
    ahead: deque[list[Future[Read]]] = deque()
    while True:
        chunk = list(islice(pictures, recipe.batch))
        if chunk:
            ahead.append([pool.submit(_read, picture, recipe, with_moments) for picture in chunk])
        if ahead and (len(ahead) > 1 or not chunk):
            yield [future.result() for future in ahead.popleft()]
        elif not chunk:
            return


def _read(picture: Picture, recipe: Recipe, with_moments: bool) -> Read:
    try:
        moments = None
        if with_moments:
            if picture.moments is None:
                raise UnusableError("no latents")
            moments = read_moments(picture.moments)
            side = recipe.autoencoder.side(recipe.size)
            if moments.shape != (2 * recipe.autoencoder.channels, side, side):
                raise UnusableError("damaged")
        pixels = None
        if recipe.images or not with_moments:
            pixels = square(read_rgb(picture.read(), recipe.smallest), recipe.size, recipe.crop)
        return Read(picture, pixels, moments, None)
    except UnusableError as error:
        return Read(picture, None, None, error.reason)


def _encode(read: Sequence[Read], autoencoder: Autoencoder | AutoencoderSpec, recipe: Recipe) -> Moments | None:
    """Moments of the usable pictures of a batch, [pictures x copies, ...]; None if there are none."""
    usable = [one for one in read if one.reason is None]
    if not usable:
        return None
    if isinstance(autoencoder, AutoencoderSpec):
        made = torch.from_numpy(np.stack([one.moments for one in usable if one.moments is not None]))
        mean, std = made.chunk(2, dim=1)
        shift, scale = (torch.tensor(value)[:, None, None] for value in (autoencoder.shift, autoencoder.scale))
        return Moments((mean - shift) * scale, std * scale)
    pixels = torch.from_numpy(np.stack([one.pixels for one in usable if one.pixels is not None]))
    batch = pixels.permute(0, 3, 1, 2).float() / 255
    if recipe.flips:
        batch = torch.stack([batch, batch.flip(3)], 1).flatten(0, 1)
    return autoencoder.moments(batch)


def _fitted(source: Source, autoencoder: Autoencoder, recipe: Recipe, pool: ThreadPoolExecutor) -> Autoencoder:
    """The autoencoder, normalised by the first usable pictures."""
    totals, count, seen = [torch.zeros(recipe.autoencoder.channels, dtype=torch.float64) for _ in range(2)], 0, 0
    for read in _batches(source, autoencoder, recipe, 0, len(source), pool):
        found = _encode(read, autoencoder, recipe)
        if found is not None:
            for total, part in zip(totals, sums(found), strict=True):
                total += part
            count += found.mean.shape[0] * found.mean[0, 0].numel()
            seen += found.mean.shape[0] // (2 if recipe.flips else 1)
        if seen >= recipe.fit:
            break
    if not count:
        raise InputError(f"no picture of {source.description} can be used; look at the files")
    mean, std = statistics(totals[0], totals[1], count)
    return autoencoder.fitted(mean, std)


def _state(out: Path, recipe: Recipe) -> Progress | None:
    """How far an earlier run came; None if there was none.

    Raises:
        InputError: If the folder holds something else.
    """
    if (out / PROGRESS).is_file():
        try:
            state = Progress.model_validate_json((out / PROGRESS).read_text(encoding="utf-8"))
        except ValidationError as error:
            raise InputError(f"{out / PROGRESS} is damaged or of another version; remove {out}") from error
        if state.recipe != recipe:
            raise InputError(f"{out} holds a part of {_difference(state.recipe, recipe)}; choose another folder")
        return state
    ours = {MEAN, STD, LABELS, IMAGES, NAMES, SKIPPED}  # of a run that was killed before it noted its progress
    if out.is_dir() and {path.name for path in out.iterdir() if not path.name.startswith(".")} <= ours:
        return None
    if out.exists():
        raise InputError(f"{out} exists and holds no prepared pictures; choose another folder")
    return None


def _difference(held: Recipe, wanted: Recipe) -> str:
    there, here = held.model_dump(), wanted.model_dump()
    differ = ", ".join(key for key in there if there[key] != here[key])
    return f"pictures prepared otherwise ({differ} differ)"

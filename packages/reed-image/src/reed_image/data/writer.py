"""Writing a preparation: files that grow, and how far they are surely on the disk.

What is on the disk beyond the noted progress is cut off when a killed preparation goes on. The manifest comes last.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from reed_core.errors import InputError
from reed_core.files import sha256, write_text
from torch import Tensor

from reed_image.autoencoder.codec import Moments
from reed_image.data.growing import GrowingArray
from reed_image.data.manifest import MANIFEST, PROGRESS, File, PreparedManifest, Progress, Stored
from reed_image.data.prepared import IMAGES, LABELS, MEAN, NAMES, SKIPPED, STD, Prepared, open_prepared
from reed_image.data.source import Picture, Source


class Read(NamedTuple):
    """A picture that was read, or why not.

    Attributes:
        picture: The picture.
        pixels: Cropped, [size, size, 3], uint8; None if not wanted.
        moments: Mean and deviation made elsewhere, [2c, h, w]; None if there are none.
        reason: Why it cannot be used; None if it can.
    """

    picture: Picture
    pixels: np.ndarray | None
    moments: np.ndarray | None
    reason: str | None


class Writer:
    """The growing files of a preparation, and how far they are surely on the disk.

    Args:
        out: The folder; created.
        state: How far an earlier run came; kept up to date here.

    Raises:
        InputError: If the folder cannot be written, or lacks what the state says it has.
    """

    def __init__(self, out: Path, state: Progress) -> None:
        self.out, self.state = out, state
        recipe = state.recipe
        side, copies, rows = recipe.autoencoder.side(recipe.size), 2 if recipe.flips else 1, state.pictures
        row = (copies, recipe.autoencoder.channels, side, side)
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write {out}: {error.strerror}; choose another place") from error
        self.arrays = {MEAN: GrowingArray(out / MEAN, row, recipe.dtype, rows)}
        if recipe.autoencoder.stochastic:
            self.arrays[STD] = GrowingArray(out / STD, row, recipe.dtype, rows)
        if recipe.images:
            self.arrays[IMAGES] = GrowingArray(out / IMAGES, (recipe.size, recipe.size, 3), np.uint8, rows)
        self.arrays[LABELS] = GrowingArray(out / LABELS, (), np.int32, rows)
        self.lists = {
            name: _cut(out / name, end) for name, end in ((NAMES, state.names), (SKIPPED, state.skipped_names))
        }
        self.names = {json.loads(line) for line in (out / NAMES).read_text(encoding="utf-8").splitlines()}

    def add(self, read: Sequence[Read], moments: Moments | None) -> None:
        """Appends a batch."""
        state, copies = self.state, 2 if self.state.recipe.flips else 1
        usable = [one for one in read if one.reason is None]
        if moments is not None:
            count = len(usable)
            for name, values in ((MEAN, moments.mean), (STD, moments.std)):
                if values is not None:
                    stored = values.cpu().numpy().reshape(count, copies, *values.shape[1:])
                    self.arrays[name].append(_finite(stored, state.recipe.dtype))
            self.arrays[LABELS].append(np.asarray([one.picture.label for one in usable], dtype=np.int32))
            if IMAGES in self.arrays:
                self.arrays[IMAGES].append(np.stack([one.pixels for one in usable if one.pixels is not None]))
            first, second = sums(moments)
            state.first = (torch.tensor(state.first, dtype=torch.float64) + first.cpu()).tolist()
            state.second = (torch.tensor(state.second, dtype=torch.float64) + second.cpu()).tolist()
            state.pictures += count
        for place, one in enumerate(read):
            if one.reason is None:
                name = one.picture.name
                name = f"{name}#{state.position + place}" if name in self.names else name
                self.names.add(name)
                self.lists[NAMES].write(json.dumps(name).encode() + b"\n")
            else:
                state.skipped[one.reason] = state.skipped.get(one.reason, 0) + 1
                self.lists[SKIPPED].write(f"{one.reason}\t{json.dumps(one.picture.name)}\n".encode())
        state.position += len(read)

    def save(self) -> None:
        """Waits for the disk, then notes how far it is."""
        for array in self.arrays.values():
            array.sync()
        for file in self.lists.values():
            file.flush()
            os.fsync(file.fileno())
        self.state.names, self.state.skipped_names = (self.lists[name].tell() for name in (NAMES, SKIPPED))
        write_text(self.out / PROGRESS, self.state.model_dump_json())

    def finish(self, source: Source) -> Prepared:
        """Closes the files and writes the manifest, which makes the folder whole."""
        state = self.state
        if not state.pictures:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(state.skipped.items()))
            raise InputError(f"no picture of {source.description} can be used ({reasons}); look at the files")
        self.save()
        for file in (*self.arrays.values(), *self.lists.values()):
            file.close()
        side = state.recipe.autoencoder.side(state.recipe.size)
        count = state.pictures * (2 if state.recipe.flips else 1) * side**2
        mean, std = statistics(
            torch.tensor(state.first, dtype=torch.float64), torch.tensor(state.second, dtype=torch.float64), count
        )
        manifest = PreparedManifest(
            recipe=state.recipe,
            description=source.description,
            autoencoder=state.autoencoder,
            classes=source.classes,
            pictures=state.pictures,
            skipped=state.skipped,
            mean=mean,
            std=std,
            files={
                name: File(bytes=(self.out / name).stat().st_size, sha256=sha256(self.out / name))
                for name in (*self.arrays, *self.lists)
            },
        )
        write_text(self.out / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        (self.out / PROGRESS).unlink()
        return open_prepared(self.out)


def sums(moments: Moments) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """Per channel: sum of the latents, and expected sum of the squares of draws."""
    mean = moments.mean.double()
    squares = mean.square() if moments.std is None else mean.square() + moments.std.double().square()
    return mean.sum((0, 2, 3)), squares.sum((0, 2, 3))


def statistics(
    first: Float[Tensor, "c"], second: Float[Tensor, "c"], count: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel.

    Args:
        first: Sum of the values.
        second: Sum of their squares.
        count: Number of values in a channel.
    """
    mean = first / count
    return tuple(mean.tolist()), tuple((second / count - mean.square()).clamp(min=0).sqrt().tolist())


def _cut(path: Path, end: int) -> Any:
    """A file of lines, cut to `end` bytes and open for appending."""
    file = path.open("r+b" if end else "w+b")
    file.truncate(end)
    file.seek(end)
    return file


def _finite(values: np.ndarray, dtype: Stored) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = values.astype(dtype)
    if not np.isfinite(stored).all():
        raise InputError(f"latents hold a value that {dtype} cannot; store float32, or look at the autoencoder")
    return stored

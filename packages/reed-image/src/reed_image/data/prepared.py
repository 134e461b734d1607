"""Prepared pictures, open for reading: memory-mapped latents, labels, names and pictures.

    mean.npy      [pictures, copies, c, h, w]   normalised latents; copies = 2 with flips: as it is, mirrored
    std.npy       likewise                      their deviation, where the autoencoder has one
    labels.npy    [pictures]  int32             class index, -1 without
    images.npy    [pictures, size, size, 3]     uint8, where they were kept
    names.txt     one name a line (JSON strings, so that any name fits a line)
    skipped.tsv   reason and name of what is not there

Item number i is picture i // copies, mirrored if i % copies is 1: representations are cached under these numbers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import ValidationError
from reed_core.errors import InputError
from reed_core.files import sha256
from reed_core.noise import NoiseSource
from reed_core.train.data import Batch
from torch import Tensor

from reed_image.autoencoder.codec import Moments
from reed_image.autoencoder.model import draw
from reed_image.data.manifest import MANIFEST, PreparedManifest
from reed_image.data.source import digest

MEAN, STD, LABELS, IMAGES, NAMES, SKIPPED = (
    "mean.npy",
    "std.npy",
    "labels.npy",
    "images.npy",
    "names.txt",
    "skipped.tsv",
)


@dataclass(frozen=True)
class Named:
    """What is known of the pictures of a batch beside their pixels; the condition that encoders get.

    Attributes:
        names: Their names.
        labels: Class index, -1 without, [b].
        mirrored: True where it is the mirrored copy, [b].
        classes: Names of the classes; empty without.
    """

    names: tuple[str, ...]
    labels: Int[Tensor, "b"]
    mirrored: Bool[Tensor, "b"]
    classes: tuple[str, ...] = ()


class Prepared:
    """A folder of prepared pictures; made by `open_prepared` or `prepare`.

    Args:
        folder: The folder.
        manifest: Its manifest.
    """

    def __init__(self, folder: Path, manifest: PreparedManifest) -> None:
        self.folder, self.manifest = Path(folder), manifest
        self.copies = 2 if manifest.recipe.flips else 1

    def __len__(self) -> int:
        """Number of items: pictures times copies."""
        return self.manifest.pictures * self.copies

    @cached_property
    def fingerprint(self) -> str:
        """Changes whenever a file does."""
        return digest(("prepared 1", *sorted((name, file.sha256) for name, file in self.manifest.files.items())))

    @cached_property
    def mean(self) -> np.ndarray:
        """[pictures, copies, c, h, w], mapped."""
        return self._mapped(MEAN)

    @cached_property
    def std(self) -> np.ndarray | None:
        """As `mean`, or None."""
        return self._mapped(STD) if STD in self.manifest.files else None

    @cached_property
    def labels(self) -> np.ndarray:
        """[pictures], int32, in memory."""
        return np.array(self._mapped(LABELS))

    @cached_property
    def images(self) -> np.ndarray | None:
        """[pictures, size, size, 3], uint8, mapped; or None."""
        return self._mapped(IMAGES) if IMAGES in self.manifest.files else None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of each picture; no two are the same."""
        return tuple(json.loads(line) for line in (self.folder / NAMES).read_text(encoding="utf-8").splitlines())

    def labels_of(self, items: Sequence[int]) -> Int[Tensor, "b"]:
        """Class indices of some items, -1 without."""
        return torch.from_numpy(self.labels[np.asarray(items) // self.copies].astype(np.int64))

    def latents(self, items: Sequence[int], noise: NoiseSource | None = None) -> Float[Tensor, "b c h w"]:
        """Latents of some items, float32: means, or with `noise` a draw of each."""
        where = np.divmod(np.asarray(items), self.copies)
        mean = torch.from_numpy(self.mean[where].astype(np.float32))
        std = None if self.std is None else torch.from_numpy(self.std[where].astype(np.float32))
        return draw(Moments(mean, std), noise)

    def pictures(self, items: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Pictures of some items, in [0, 1].

        Raises:
            InputError: If they were not kept.
        """
        if self.images is None:
            raise InputError(f"{self.folder} was prepared without its pictures; prepare it again with them")
        which, mirrored = np.divmod(np.asarray(items), self.copies)
        found = self.images[which]
        found[mirrored == 1] = found[mirrored == 1][:, :, ::-1]
        return torch.from_numpy(found).permute(0, 3, 1, 2).float() / 255

    def items(self, pixels: bool = True) -> "PictureItems":
        """The pictures as what `reed_core.representation` encodes; without pixels, their names and classes alone."""
        return PictureItems(self, pixels)

    def verify(self) -> None:
        """Reads everything and compares the SHA-256 of each file.

        Raises:
            InputError: If a file is damaged.
        """
        for name, file in self.manifest.files.items():
            if sha256(self.folder / name) != file.sha256:
                raise InputError(f"{self.folder / name} is damaged: its SHA-256 is not the manifest's; prepare again")

    def _mapped(self, name: str) -> np.ndarray:
        return np.load(self.folder / name, mmap_mode="r", allow_pickle=False)


@dataclass(frozen=True)
class PictureItems:
    """Numbered pictures to be encoded: x_0 is in [0, 1], [b, 3, s, s], and c is `Named`.

    Attributes:
        prepared: Where they come from.
        pixels: Whether the pictures are read; else x_0 is empty, for what goes by the name alone.
    """

    prepared: Prepared
    pixels: bool = True

    @property
    def fingerprint(self) -> str:
        """That of the folder."""
        return self.prepared.fingerprint

    def __len__(self) -> int:
        return len(self.prepared)

    def batch(self, items: Sequence[int]) -> Batch:
        """Some items."""
        prepared = self.prepared
        names = tuple(prepared.names[item // prepared.copies] for item in items)
        mirrored = torch.tensor([item % prepared.copies == 1 for item in items])
        x_0 = prepared.pictures(items) if self.pixels else torch.zeros(len(names), 0)
        return Batch(x_0, c=Named(names, prepared.labels_of(items), mirrored, prepared.manifest.classes))


def open_prepared(folder: Path | str) -> Prepared:
    """Opens a finished folder: checks its manifest and the sizes of its files, reads no picture.

    Raises:
        InputError: If it is not there, not finished, or a file is missing or cut short.
    """
    folder = Path(folder)
    try:
        manifest = PreparedManifest.model_validate_json((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"no prepared pictures in {folder} (no {MANIFEST}); run prepare, or let it finish") from error
    except ValidationError as error:
        raise InputError(f"{folder / MANIFEST} is not of this version; prepare the pictures again") from error
    for name, file in manifest.files.items():
        place = folder / name
        size = place.stat().st_size if place.is_file() else None
        if size != file.bytes:
            state = "is missing" if size is None else f"holds {size} bytes instead of {file.bytes}"
            raise InputError(f"{place} {state}; copy it again, or prepare the pictures again")
    return Prepared(folder, manifest)

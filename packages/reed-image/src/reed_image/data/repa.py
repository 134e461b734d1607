"""The disk of somebody who trains with REPA, as it is: images and latents in twin folders.

    images/00000/img00000000.png                  the cropped picture
    vae-sd/00000/img-mean-std-00000000.npy        [8, h, w]: mean and standard deviation of the SD-VAE, not scaled
    vae-sd/dataset.json, or images/dataset.json   {"labels": [["00000/img-mean-std-00000000.npy", 207], ...]}

A picture and its latents belong together by folder and number, not by their order in a listing.
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float
from reed_core.errors import InputError

from reed_image.data.folder import ImageFolder, read_file
from reed_image.data.image_file import UnusableError
from reed_image.data.source import LABELS, UNLABELLED, Picture, digest, labels_of

IMAGES, LATENTS = "images", "vae-sd"
_NUMBER = re.compile(r"(\d+)\D*$")


class RepaFolder:
    """A folder with `images/` and `vae-sd/`, ordered by the path of the picture.

    Args:
        folder: The folder.

    Raises:
        InputError: If two latents claim one picture, or no picture has latents.
    """

    classes: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.names = ImageFolder(self.folder / IMAGES).names
        self._latents: dict[str, str] = {}
        for here, _, files in os.walk(self.folder / LATENTS):
            for file in files:
                if file.endswith(".npy"):
                    name = Path(here, file).relative_to(self.folder / LATENTS).as_posix()
                    if self._latents.setdefault(_key(name), name) != name:
                        raise InputError(f"{folder}/{LATENTS} has two latents of number {_key(name)}; remove one")
        if not any(_key(name) in self._latents for name in self.names):
            raise InputError(f"no picture of {folder}/{IMAGES} has latents of its number in {LATENTS}")
        self._labels = {_key(name): label for name, label in self._listed().items()}

    @property
    def description(self) -> str:
        """The folder's name."""
        return f"REPA folder {self.folder.name}"

    @property
    def fingerprint(self) -> str:
        """Names, sizes and labels."""
        parts = (
            (name, (self.folder / IMAGES / name).stat().st_size, self._latents.get(_key(name)), self._label(name))
            for name in self.names
        )
        return digest(("repa 1", *parts))

    def __len__(self) -> int:
        return len(self.names)

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        """The pictures from number `start` on; one without latents is there, and cannot be used."""
        for name in self.names[start:]:
            found = self._latents.get(_key(name))
            place = self.folder / LATENTS / (found or "absent.npy")
            yield Picture(name, self._label(name), partial(read_file, self.folder / IMAGES / name), place)

    def _label(self, name: str) -> int:
        return self._labels.get(_key(name), UNLABELLED)

    def _listed(self) -> Mapping[str, int]:
        for place in (self.folder / LATENTS / LABELS, self.folder / IMAGES / LABELS, self.folder / LABELS):
            if place.is_file():
                return labels_of(place.read_text(encoding="utf-8"), str(place))
        return {}


def read_moments(path: Path) -> Float[np.ndarray, "c2 h w"]:
    """Latents of one picture: mean and standard deviation, stacked along channels.

    Raises:
        UnusableError: If there are none, or they are no such array.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError as error:
        raise UnusableError("no latents") from error
    except (OSError, ValueError, EOFError) as error:
        raise UnusableError("damaged") from error
    found = found[0] if found.ndim == 4 and len(found) == 1 else found
    if found.ndim != 3 or len(found) % 2 or not np.issubdtype(found.dtype, np.floating) or not np.isfinite(found).all():
        raise UnusableError("damaged")
    return found.astype(np.float32)


def _key(name: str) -> str:
    """Folder and number of a file: the same for a picture and its latents."""
    folder, _, file = name.rpartition("/")
    number = _NUMBER.search(Path(file).stem)
    return f"{folder}/{int(number[1]) if number else Path(file).stem}"

"""Pictures to be judged, wherever they are, as 8-bit squares of one side.

    folder, zip, parquet, data set   as `reed_image.data.open_source` takes them
    prepared pictures                the pictures that were kept, or the means of their latents, decoded
    FILE.npz                         `arr_0`, uint8 [n, side, side, 3]: a sample batch of ADM
    a model                          drawn here, and rounded as the files of `sample` are

Samples are judged as they are: square, and of one size, unless a side is asked for. A reference is brought to their
side by ADM's centre crop (`reed_image.data.crop`), which changes nothing where it has that side. Of a part of a set,
pictures are taken evenly over it: sets are often sorted by class. Mirrored copies of prepared pictures are left out.
"""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.lib import format as npy
from PIL import Image
from reed_core.errors import InputError
from torch import Tensor

from reed_image.autoencoder import load_recorded
from reed_image.data import Prepared, Source, open_prepared, open_source
from reed_image.data.crop import Crop, square
from reed_image.data.image_file import UnusableError, read_rgb
from reed_image.data.manifest import MANIFEST
from reed_image.grid import to_pixels
from reed_image.model import ImageModel
from reed_image.sample import Decoder, Request, draw

_READERS = 4


@dataclass(frozen=True)
class Pictures:
    """A set of pictures.

    Attributes:
        description: What and where, for a person.
        count: How many; unusable ones among them.
        read: Yields them in lists of at most so many; None stands for one that cannot be used.
    """

    description: str
    count: int
    read: Callable[[int], Iterator[list[Image.Image | None]]]


class Squares:
    """The pictures of a set as batches of 8-bit squares, and what became of them.

    Args:
        pictures: The set.
        side: Side of the squares; None: that of the first picture.
        crop: How a picture of another size becomes one; None: such a picture is refused.

    Attributes:
        side: Side of the squares, once the first is read.
        used: Pictures yielded so far.
        unusable: Pictures left out.
        changed: Pictures that had another size.
        enlarged: Those of them that were smaller.
    """

    def __init__(self, pictures: Pictures, side: int | None = None, crop: Crop | None = None) -> None:
        if side is not None and side < 1:
            raise InputError(f"pictures of {side} pixels; expected at least 1")
        self.pictures, self.side, self.crop = pictures, side, crop
        self.used = self.unusable = self.changed = self.enlarged = 0

    def batches(self, size: int) -> Iterator[UInt8[Tensor, "b 3 s s"]]:
        """Batches of at most `size` pictures.

        Raises:
            InputError: If a picture has another size and no crop is set, or none can be used.
        """
        for read in self.pictures.read(size):
            found = [image for image in read if image is not None]
            self.unusable += len(read) - len(found)
            if found:
                made = np.stack([self._square(image) for image in found])
                self.used += len(made)
                yield torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()
        if not self.used:
            raise InputError(f"no picture of {self.pictures.description} can be used; look at the files")

    def _square(self, image: Image.Image) -> np.ndarray:
        width, height = image.size
        if self.side is None:
            if width != height:
                raise InputError(f"{self._described(image)} is not square; give --size, and it is cropped")
            self.side = width
        if (width, height) == (self.side, self.side):
            return np.asarray(image)
        if self.crop is None:
            raise InputError(f"{self._described(image)} among such of {self.side}; give --size, and they are cropped")
        self.changed += 1
        self.enlarged += min(width, height) < self.side
        return square(image, self.side, self.crop)

    def _described(self, image: Image.Image) -> str:
        return f"{self.pictures.description}: a picture of {image.width} x {image.height} pixels"


def open_pictures(where: str, num: int | None = None, device: Any = "cpu") -> Pictures:
    """A set of pictures by its place.

    Args:
        where: See the top of this module.
        num: How many are taken, evenly over the set; None: all.
        device: Where an autoencoder is to run.

    Raises:
        InputError: If there is nothing of the kind, or fewer than `num`.
    """
    path = Path(where)
    if path.suffix == ".npz" and path.is_file():
        return _of_array(path, num)
    if (path / MANIFEST).is_file():
        return of_prepared(open_prepared(path), num, device)
    return _of_source(open_source(where), num)


def of_model(model: ImageModel, decode: Decoder, request: Request, name: str) -> Pictures:
    """Pictures that a model draws when they are read."""

    def read(size: int) -> Iterator[list[Image.Image | None]]:
        for drawn in draw(model, request, None, size):
            yield [Image.fromarray(one) for one in to_pixels(decode(drawn.x))]

    return Pictures(name, request.num, read)


def of_prepared(prepared: Prepared, num: int | None = None, device: Any = "cpu") -> Pictures:
    """Prepared pictures as they were kept, or decoded; without mirrored copies."""
    description = str(prepared.folder)
    items = [which * prepared.copies for which in evenly(prepared.manifest.pictures, num, description)]
    autoencoder = None if prepared.images is not None else load_recorded(prepared.manifest.autoencoder).to(device)

    def read(size: int) -> Iterator[list[Image.Image | None]]:
        for start in range(0, len(items), size):
            some = items[start : start + size]
            if autoencoder is None:
                images = prepared.pictures(some)
            else:
                images = autoencoder.decode(prepared.latents(some).to(device)).cpu()
            yield [Image.fromarray(one) for one in to_pixels(images)]

    return Pictures(f"{description}{'' if autoencoder is None else ' (decoded)'}", len(items), read)


def evenly(count: int, num: int | None, description: str) -> Sequence[int]:
    """Which of `count` pictures are taken.

    Raises:
        InputError: If there are fewer than `num`.
    """
    if num is None:
        return range(count)
    if not 1 <= num <= count:
        raise InputError(f"{num} pictures of {description}, which has {count}; ask for one or more, and no more")
    return [place * count // num for place in range(num)]


def _of_source(source: Source, num: int | None) -> Pictures:
    kept = evenly(len(source), num, source.description)

    def read(size: int) -> Iterator[list[Image.Image | None]]:
        wanted = set(kept)
        some = (picture for place, picture in enumerate(source.pictures()) if place in wanted)
        with ThreadPoolExecutor(_READERS) as pool:
            while chunk := list(islice(some, size)):
                yield list(pool.map(_decoded, [picture.read for picture in chunk]))

    return Pictures(source.description, len(kept), read)


def _decoded(read: Callable[[], bytes]) -> Image.Image | None:
    try:
        return read_rgb(read())
    except UnusableError:
        return None


def _of_array(path: Path, num: int | None) -> Pictures:
    """`arr_0` of an .npz, read batch by batch: ADM's batch of 256 pixels has 10 GB."""
    with _array(path) as (_, shape):
        kept = evenly(shape[0], num, str(path))

    def read(size: int) -> Iterator[list[Image.Image | None]]:
        wanted = set(kept)
        with _array(path) as (stream, shape):
            each, found = int(np.prod(shape[1:])), []
            for place in range(shape[0]):
                data = stream.read(each)
                if len(data) != each:
                    raise InputError(f"{path} ends early; copy it again")
                if place in wanted:
                    found.append(Image.fromarray(np.frombuffer(data, np.uint8).reshape(shape[1:])))
                if len(found) == size:
                    yield list(found)
                    found.clear()
            if found:
                yield list(found)

    return Pictures(str(path), len(kept), read)


@contextmanager
def _array(path: Path) -> Iterator[tuple[Any, tuple[int, ...]]]:
    """The values of `arr_0` as a stream, and their shape."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as stream:
            version = npy.read_magic(stream)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = header(stream)
            if dtype != np.uint8 or fortran or len(shape) != 4 or shape[3] != 3:
                raise InputError(f"{path}: arr_0 is {dtype} {list(shape)}; expected pictures, uint8 [n, side, side, 3]")
            yield stream, shape
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} holds no pictures under arr_0 ({type(error).__name__}); give a sample batch"
        ) from error

"""Pictures as files: one grid of them, or a folder with one file each."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from reed_core.errors import InputError
from reed_core.files import directory_written_aside, write_with
from torch import Tensor

GAP = 2  # pixels between the pictures of a grid
LISTING = "pictures.csv"


def to_pixels(images: Float[Tensor, "b 3 H W"]) -> np.ndarray:
    """Pictures in [0, 1] as [b, H, W, 3], uint8, rounded to the nearest."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def arranged(images: Float[Tensor, "b 3 H W"], columns: int | None = None, zoom: int = 1) -> Image.Image:
    """One picture of many, row by row, on white.

    Args:
        images: In [0, 1].
        columns: Pictures of a row; None makes it nearly square.
        zoom: Side of the square that each pixel becomes.
    """
    pixels = to_pixels(images).repeat(zoom, 1).repeat(zoom, 2)
    count, height, width, _ = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 255, dtype=np.uint8)
    for place, one in enumerate(pixels):
        row, column = divmod(place, columns)
        top, left = GAP + row * (height + GAP), GAP + column * (width + GAP)
        sheet[top : top + height, left : left + width] = one
    return Image.fromarray(sheet)


def write_grid(images: Float[Tensor, "b 3 H W"], path: Path | str, columns: int | None = None, zoom: int = 1) -> None:
    """Writes a grid as a PNG file, whole or not at all; arguments as of `arranged`.

    Raises:
        InputError: If it cannot be written.
    """
    sheet = arranged(images, columns, zoom)
    write_with(path, lambda aside: sheet.save(aside, format="PNG"))


def write_folder(
    batches: Iterable[tuple[Float[Tensor, "_ 3 H W"], Sequence[int], Sequence[str]]], folder: Path | str
) -> int:
    """Writes one PNG file for each picture, and `pictures.csv`: file, number, class. A part is never left behind.

    Args:
        batches: Pictures in [0, 1], their numbers, and their classes; drawn one after the other.
        folder: Absent, or empty.

    Returns:
        How many there are.

    Raises:
        InputError: If the folder holds something, or cannot be written.
    """
    rows: list[tuple[str, int, str]] = []
    with directory_written_aside(folder) as aside:
        for images, numbers, classes in batches:
            for one, number, name in zip(to_pixels(images), numbers, classes, strict=True):
                file = f"{number:06d}.png"
                Image.fromarray(one).save(aside / file)
                rows.append((file, number, name))
        with (aside / LISTING).open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([("file", "number", "class"), *rows])
    return len(rows)


def check_out(out: Path) -> bool:
    """Whether a place to write to is a grid (.png), and not a folder; before anything is drawn.

    Raises:
        InputError: If it can be neither.
    """
    out = Path(out)
    if out.suffix.lower() == ".png":
        if out.is_dir():
            raise InputError(f"cannot write {out}: it is a folder; give the path of a file")
        return True
    if out.suffix.lower() in (".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"):
        raise InputError(f"cannot write {out}: expected a .png file for a grid, or a folder for one file each")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"cannot write {out}: it is not an empty folder; choose another")
    return False

"""A folder of image files. The class is the sub-folder; or `dataset.json` says it, as EDM's and REPA's tools write."""

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from reed_core.errors import InputError

from reed_image.data.image_file import UnusableError
from reed_image.data.source import (
    LABELS,
    UNLABELLED,
    Picture,
    classes_by_folder,
    digest,
    is_picture,
    labels_of,
)


class ImageFolder:
    """Image files below a folder, ordered by path.

    Args:
        folder: The folder. With a `dataset.json`, labels are those of the file; else the class of a picture is the
            first sub-folder on its path, and pictures in the folder itself have none.

    Raises:
        InputError: If there is no image in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.names = sorted(name for name in _walk(self.folder) if is_picture(name))
        if not self.names:
            raise InputError(f"no image in {folder}; expected files such as CLASS/NAME.jpg below it")
        listed = self.folder / LABELS
        self._listed: Mapping[str, int] | None = (
            labels_of(listed.read_text(encoding="utf-8"), str(listed)) if listed.is_file() else None
        )
        self.classes = () if self._listed is not None else classes_by_folder(self.names)
        self._index = {name: number for number, name in enumerate(self.classes)}

    @property
    def description(self) -> str:
        """The folder's name."""
        return f"image folder {self.folder.name}"

    @property
    def fingerprint(self) -> str:
        """Names, sizes and labels; the files are not read."""
        sizes = ((name, (self.folder / name).stat().st_size, self.label(name)) for name in self.names)
        return digest(("folder 1", *sizes))

    def __len__(self) -> int:
        return len(self.names)

    def label(self, name: str) -> int:
        """The class of a picture."""
        if self._listed is not None:
            return self._listed.get(name, UNLABELLED)
        return self._index[name.split("/")[0]] if "/" in name else UNLABELLED

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        """The pictures from number `start` on."""
        for name in self.names[start:]:
            yield Picture(name, self.label(name), partial(read_file, self.folder / name))


def read_file(path: Path) -> bytes:
    """The content of a file.

    Raises:
        UnusableError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableError("missing") from error


def _walk(folder: Path) -> Iterator[str]:
    """Paths of all files below a folder, "/" between parts; links are followed, each folder once."""
    seen: set[str] = set()
    for here, below, files in os.walk(folder, followlinks=True):
        below[:] = [name for name in sorted(below) if _first_visit(os.path.join(here, name), seen)]
        for name in files:
            yield Path(here, name).relative_to(folder).as_posix()


def _first_visit(path: str, seen: set[str]) -> bool:
    real = os.path.realpath(path)
    fresh = real not in seen
    seen.add(real)
    return fresh

"""A zip of image files, read in place. Classes are as in a folder (`reed_image.data.folder`)."""

import zipfile
import zlib
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


class ZippedImages:
    """The image files of a zip, ordered by path. A folder that holds everything else is looked through.

    Args:
        path: The zip.

    Raises:
        InputError: If it is no zip, or holds no image.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._zip = zipfile.ZipFile(self.path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path} cannot be read as a zip ({error}); make it again") from error
        self._entries = {entry.filename: entry for entry in self._zip.infolist() if is_picture(entry.filename)}
        if not self._entries:
            raise InputError(f"no image in {path}; expected files such as CLASS/NAME.jpg in it")
        self.names = sorted(self._entries)
        self._outer = _common_folder(self.names)
        listed = self._outer + LABELS
        self._listed: Mapping[str, int] | None = (
            labels_of(self._zip.read(listed).decode(), f"{listed} of {path}")
            if listed in self._zip.namelist()
            else None
        )
        self.classes = () if self._listed is not None else classes_by_folder(map(self._inner, self.names))
        self._index = {name: number for number, name in enumerate(self.classes)}

    @property
    def description(self) -> str:
        """The file's name."""
        return f"zip {self.path.name}"

    @property
    def fingerprint(self) -> str:
        """Names, checksums and labels."""
        parts = ((name, self._entries[name].CRC, self.label(self._inner(name))) for name in self.names)
        return digest(("zip 1", *parts))

    def __len__(self) -> int:
        return len(self.names)

    def label(self, name: str) -> int:
        """The class of a picture, by its path below the outer folder."""
        if self._listed is not None:
            return self._listed.get(name, UNLABELLED)
        return self._index[name.split("/")[0]] if "/" in name else UNLABELLED

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        """The pictures from number `start` on."""
        for name in self.names[start:]:
            inner = self._inner(name)
            yield Picture(inner, self.label(inner), partial(self._read, name))

    def _inner(self, name: str) -> str:
        return name[len(self._outer) :]

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._entries[name])
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, NotImplementedError) as error:
            raise UnusableError("damaged") from error


def _common_folder(names: list[str]) -> str:
    """The folder that holds all class folders, such as "train/"; "" if classes lie at the top."""
    outer = ""
    while True:
        heads = {name[len(outer) :].split("/", 1)[0] for name in names}
        deep = all(name[len(outer) :].count("/") >= 2 for name in names)
        if len(heads) != 1 or not deep:
            return outer
        outer += heads.pop() + "/"

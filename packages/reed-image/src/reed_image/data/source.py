"""Where images come from: a source lists its pictures in one fixed order, and can be entered anywhere.

A source yields `Picture`s without reading them all: memory does not grow with their number. Its fingerprint changes
when a file is added, removed, renamed or changes its size (in an archive, when its checksum changes).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from reed_core.errors import InputError

UNLABELLED = -1
LABELS = "dataset.json"
_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)


@dataclass(frozen=True)
class Picture:
    """One picture, not yet read.

    Attributes:
        name: Its name within the source.
        label: Class index, or `UNLABELLED`.
        read: Returns the image file. Raises `UnusableError` if there is none.
        moments: Where its latents lie, made elsewhere, if they do.
    """

    name: str
    label: int
    read: Callable[[], bytes]
    moments: Path | None = None


@runtime_checkable
class Source(Protocol):
    """Pictures in a fixed order."""

    @property
    def description(self) -> str:
        """What and where it is, for a person."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if it has no labels or no names for them."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the pictures do."""
        ...

    def __len__(self) -> int: ...

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        """The pictures from number `start` on."""
        ...


def is_picture(name: str) -> bool:
    """Whether a file is an image, by its name. Hidden files are not."""
    parts = name.split("/")
    return Path(name).suffix.lower() in _SUFFIXES and not any(part.startswith((".", "__MACOSX")) for part in parts)


def digest(parts: Iterable[Any]) -> str:
    """A hash of a sequence of values with a fixed `repr`."""
    found = hashlib.sha256()
    for part in parts:
        found.update(repr(part).encode())
    return found.hexdigest()


def labels_of(text: str, where: str) -> Mapping[str, int]:
    """Class indices by file name, as EDM and REPA write them: {"labels": [["a/b.png", 3], ...]}, or a mapping.

    Args:
        text: The content of `dataset.json`.
        where: What to call it in an error.

    Raises:
        InputError: If it is something else.
    """
    try:
        found = json.loads(text)["labels"]
        if found is None:
            return {}
        pairs = found.items() if isinstance(found, dict) else found
        return {str(name): int(label) for name, label in pairs}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{where} is no list of labels; expected {{"labels": [["name.png", 3], ...]}}; correct or remove it'
        ) from error


def classes_by_folder(names: Iterable[str]) -> tuple[str, ...]:
    """The first-level folders of some paths, sorted: the names of the classes."""
    return tuple(sorted({name.split("/")[0] for name in names if "/" in name}))

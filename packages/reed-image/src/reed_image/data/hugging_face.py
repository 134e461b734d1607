"""Hugging Face `datasets`: an object, a folder of `save_to_disk`, or the name of a data set (extra `datasets`)."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from reed_core.errors import InputError

from reed_image.data.columns import find_columns
from reed_image.data.parquet import content
from reed_image.data.source import UNLABELLED, Picture, digest


class HuggingFaceImages:
    """A `datasets.Dataset` with a column of images, which are decoded here and not there.

    Args:
        dataset: The data set; one split.
        name: What to call it.
        image_column: Name of the column of images; left out, it is found.
        label_column: Name of the column of classes; left out, it is found, and there may be none.

    Raises:
        InputError: If it has several splits or no fixed length, or the columns cannot be told.
    """

    def __init__(
        self, dataset: Any, name: str = "dataset", image_column: str | None = None, label_column: str | None = None
    ) -> None:
        if isinstance(dataset, dict):
            raise InputError(f"{name} has the splits {', '.join(dataset)}; choose one: --split NAME")
        if not hasattr(dataset, "select") or not hasattr(dataset, "features"):
            raise InputError(f"{name} is a {type(dataset).__name__}; expected a datasets.Dataset of known length")
        library = _datasets()
        features = {
            column: {"_type": type(kind).__name__, "names": getattr(kind, "names", None)}
            for column, kind in dataset.features.items()
        }
        self.columns = find_columns(list(features), features, name, image_column, label_column)
        wanted = [column for column in (self.columns.image, self.columns.label) if column]
        dataset = dataset.select_columns(wanted)
        if features[self.columns.image]["_type"] == "Image":
            dataset = dataset.cast_column(self.columns.image, library.Image(decode=False))
        self.dataset, self.name = dataset, name
        self.classes = self.columns.classes or self._text_classes()
        self._index = {label: number for number, label in enumerate(self.classes)}

    @property
    def description(self) -> str:
        """The name of the data set."""
        return f"data set {self.name}"

    @property
    def fingerprint(self) -> str:
        """The fingerprint that `datasets` keeps, and the columns."""
        return digest(("datasets 1", getattr(self.dataset, "_fingerprint", None), len(self.dataset), self.columns))

    def __len__(self) -> int:
        return len(self.dataset)

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        """The pictures from number `start` on."""
        for position in range(start, len(self.dataset)):
            row = self.dataset[position]
            entry = row[self.columns.image]
            data, path = (entry.get("bytes"), entry.get("path")) if isinstance(entry, dict) else (entry, None)
            label = row[self.columns.label] if self.columns.label else None
            number = UNLABELLED if label is None else self._index[label] if isinstance(label, str) else int(label)
            name = Path(path).name if path else f"{position:08d}"
            yield Picture(name, number, partial(content, data, path, Path()))

    def _text_classes(self) -> tuple[str, ...]:
        label = self.columns.label
        if label is None or getattr(self.dataset.features[label], "dtype", "") not in ("string", "large_string"):
            return ()
        return tuple(sorted(value for value in self.dataset.unique(label) if value is not None))


def load_hugging_face(name: str, split: str = "train") -> HuggingFaceImages:
    """Loads a data set by its name, from the local cache or the network; or from a folder of `save_to_disk`.

    Args:
        name: "owner/name", or a folder.
        split: Which part.

    Raises:
        InputError: If the extra is not installed, or the data set cannot be had.
    """
    library = _datasets()
    try:
        if Path(name).is_dir():
            found = library.load_from_disk(name)
            found = found[split] if isinstance(found, dict) else found
        else:
            found = library.load_dataset(name, split=split)
    except Exception as error:  # a download fails in many ways, and so does a folder that is something else
        raise InputError(
            f"data set '{name}', split '{split}', cannot be had ({type(error).__name__}); check name, split and "
            "connection, or give a folder, a zip or parquet files"
        ) from error
    return HuggingFaceImages(found, name)


def _datasets() -> ModuleType:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise InputError(
            "Hugging Face data sets need the package datasets; install reed-image[datasets], or give parquet files"
        ) from error

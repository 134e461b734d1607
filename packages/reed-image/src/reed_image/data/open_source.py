"""Which source a path, a name or an object is."""

from pathlib import Path
from typing import Any

from reed_core.errors import InputError

from reed_image.data.folder import ImageFolder
from reed_image.data.hugging_face import HuggingFaceImages, load_hugging_face
from reed_image.data.parquet import ParquetImages
from reed_image.data.repa import IMAGES, LATENTS, RepaFolder
from reed_image.data.source import Source
from reed_image.data.zipped import ZippedImages


def open_source(
    where: Any, split: str = "train", image_column: str | None = None, label_column: str | None = None
) -> Source:
    """Opens a source of pictures.

    Args:
        where: A folder of images, a zip, a parquet file or a folder of them, a REPA folder, a folder of
            `datasets.save_to_disk`, the name "owner/name" of a Hugging Face data set, or a `datasets.Dataset`.
        split: Which part of a Hugging Face data set.
        image_column: The column of images, where there are columns; left out, it is found.
        label_column: The column of classes.

    Raises:
        InputError: If nothing of the kind is there.
    """
    if not isinstance(where, (str, Path)):
        return HuggingFaceImages(where, image_column=image_column, label_column=label_column)
    path = Path(where)
    if path.is_dir():
        return _open_folder(path, split, image_column, label_column)
    if path.is_file():
        if path.suffix.lower() == ".zip":
            return ZippedImages(path)
        if path.suffix.lower() == ".parquet":
            return ParquetImages(path, image_column, label_column)
        raise InputError(f"{path} is neither a .zip nor a .parquet file; give one, or a folder of images")
    name = str(where)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not path.suffix:
        return load_hugging_face(name, split)
    raise InputError(f"no file or folder {where}; give a folder of images, a zip, parquet files or a data set's name")


def _open_folder(path: Path, split: str, image_column: str | None, label_column: str | None) -> Source:
    if (path / IMAGES).is_dir() and (path / LATENTS).is_dir():
        return RepaFolder(path)
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return load_hugging_face(str(path), split)
    if any(path.glob("*.parquet")):
        return ParquetImages(path, image_column, label_column)
    return ImageFolder(path)

"""Which columns of a table hold the image and its class, in the Hugging Face convention.

An image is a struct of `bytes` and `path` (or plain bytes); a class is an integer whose names stand in the schema, or a
string. Columns are found by their declared type, then by name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reed_core.errors import InputError

IMAGE_NAMES = ("image", "img", "picture", "jpg", "png", "webp")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "cls")


@dataclass(frozen=True)
class Columns:
    """The columns in use.

    Attributes:
        image: Name of the column of images.
        label: Name of the column of classes, or None.
        classes: Names of the classes, if the schema has them.
    """

    image: str
    label: str | None
    classes: tuple[str, ...] = ()


def declared_features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """The features that `datasets` writes into the metadata of a schema; empty if there are none."""
    try:
        found = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def find_columns(
    names: Sequence[str],
    features: Mapping[str, Any],
    where: str,
    image: str | None = None,
    label: str | None = None,
) -> Columns:
    """Finds the columns.

    Args:
        names: All columns.
        features: Their declared features: mappings with `_type`, and `names` for classes.
        where: What to call the table in an error.
        image: The column of images, if it is known.
        label: The column of classes, if it is known.

    Raises:
        InputError: If there is no such column, or which one cannot be told.
    """
    for asked in (image, label):
        if asked is not None and asked not in names:
            raise InputError(f"{where} has no column '{asked}'; it has {', '.join(names)}")
    typed = {kind: [name for name in names if _type(features, name) == kind] for kind in ("Image", "ClassLabel")}
    found = image or _one(typed["Image"]) or _first(IMAGE_NAMES, names)
    if found is None:
        raise InputError(f"{where} has no column of images that can be told from {', '.join(names)}; name it")
    of_class = label or _one(typed["ClassLabel"]) or _first(LABEL_NAMES, names)
    listed = features.get(of_class, {}).get("names") if of_class else None
    return Columns(found, of_class, tuple(map(str, listed or ())))


def _type(features: Mapping[str, Any], name: str) -> str | None:
    feature = features.get(name)
    return feature.get("_type") if isinstance(feature, dict) else None


def _one(names: Sequence[str]) -> str | None:
    return names[0] if len(names) == 1 else None


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in names), None)

"""Prepared pictures as training data: `reed_core.train.arrays.ArrayData` over their mapped files."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from reed_core.noise import NoiseSource
from reed_core.state import State
from reed_core.train.arrays import ArrayData, Gathers
from reed_core.train.rows import Rows
from torch import Tensor

from reed_image.autoencoder.codec import Moments
from reed_image.autoencoder.model import draw
from reed_image.data.prepared import MEAN, STD, Prepared
from reed_image.data.source import UNLABELLED

X, ITEM = "x", "item"


def training_data(
    prepared: Prepared,
    batch_size: int,
    *,
    seed: int = 0,
    null_class: int | None = None,
    drop: float = 0.0,
    latents: Mapping[str, Rows | Gathers] | None = None,
    whole_batches: bool = True,
    numbered: bool = False,
) -> ArrayData:
    """Latents as x_0 (drawn anew for each sample, where they have a deviation), classes as condition.

    Args:
        prepared: The pictures. A mirrored copy takes the place of its picture at random.
        batch_size: Pictures of a batch.
        seed: Seeds the order.
        null_class: The class that means "unknown"; pictures without a label get it.
        drop: Probability that a sample's class is the null class.
        latents: Representations by name, of all items of `prepared.items()`.
        whole_batches: Leave out a last, smaller batch.
        numbered: x_0 comes as {"x": ..., "item": ...} with the number of the item, to look up what stands beside it.

    Returns:
        The data; its condition is None if no picture has a label.

    Raises:
        InputError: If a representation is of another number of items, or a setting is out of range.
    """
    fields = {MEAN: _rows(prepared, MEAN)}
    if prepared.std is not None:
        fields[STD] = _rows(prepared, STD)
    if numbered:
        fields[ITEM] = Rows(torch.arange(len(prepared)))
    labels = torch.from_numpy(prepared.labels.astype(np.int64))
    known = labels != UNLABELLED
    if null_class is not None:
        labels = torch.where(known, labels, null_class)
    return ArrayData(
        x_0=fields,
        batch_size=batch_size,
        seed=seed,
        labels=labels if bool(known.any()) else None,
        null_class=null_class,
        drop=drop,
        copies=prepared.copies,
        latents=dict(latents or {}),
        transform=_drawn,
        whole_batches=whole_batches,
    )


def _rows(prepared: Prepared, name: str) -> Rows:
    return Rows(torch.from_numpy(np.load(prepared.folder / name, mmap_mode="c", allow_pickle=False)).flatten(0, 1))


def _drawn(stored: State, noise: NoiseSource) -> State:
    fields = cast("Mapping[str, Tensor]", stored)
    x_0 = draw(Moments(fields[MEAN], fields.get(STD)), noise)
    return {X: x_0, ITEM: fields[ITEM]} if ITEM in fields else x_0

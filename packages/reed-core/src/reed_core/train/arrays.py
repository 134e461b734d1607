"""A `DataSource` over arrays: items of one shape, a batch of which is one gather.

It is what a domain uses whose items have been brought to one shape (images on the latents of an autoencoder, spectra,
padded sequences). Choices are keyed by the sample's place in the run, so they differ from epoch to epoch and depend on
neither the batch nor the number of processes.
"""

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int64
from torch import Tensor

from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.noise import NoiseSource
from reed_core.state import State, map_state
from reed_core.train.data import Batch
from reed_core.train.order import even, permutation
from reed_core.train.rows import Rows


@runtime_checkable
class Gathers(Protocol):
    """What gives the z of rows by their numbers: `reed_core.representation.Cache`, and its controls."""

    def gather(self, items: Sequence[int]) -> Representation:
        """The z of a batch."""
        ...


@dataclass(frozen=True)
class ArrayData:
    """Training data in arrays, mapped or on a device.

    With `copies`, an item is stored in several versions (an image and its mirror image): copy k of item i is row
    i * copies + k of every array and cache, and each sample takes one of them at random.

    Attributes:
        x_0: Clean data, or a mapping of fields. Half-precision values are given as float32.
        batch_size: Items of a batch.
        seed: Seeds the order.
        labels: The class of each item (not of each copy), given as the condition; None gives no condition.
        null_class: The class that means "unknown", as classifier-free guidance needs.
        drop: Probability that a sample's class is the null class instead.
        copies: Versions of each item.
        latents: z by name: rows [d] or [n, d] beside those of x_0, or a cache whose items are these rows.
        mask: Where elements of x_0 exist, rows [n] of booleans; None means everywhere.
        transform: Makes x_0 of what is stored, with the noise of the samples: a scale, a draw from stored moments.
        whole_batches: Leave out the last batch of an epoch where it is smaller: every step then has one shape.

    Raises:
        InputError: If the numbers of rows do not fit, or a setting is out of range.
    """

    x_0: Rows | Mapping[str, Rows]
    batch_size: int
    seed: int = 0
    labels: Int64[Tensor, " n"] | None = None
    null_class: int | None = None
    drop: float = 0.0
    copies: int = 1
    latents: Mapping[str, Rows | Gathers] = field(default_factory=dict)
    mask: Rows | None = None
    transform: Callable[[State, NoiseSource], State] | None = None
    whole_batches: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.copies < 1 or not 0.0 <= self.drop <= 1.0:
            raise InputError(
                f"batch_size {self.batch_size}, copies {self.copies}, drop {self.drop:g}: expected 1 or more, 1 or "
                "more, and a probability"
            )
        if self.drop > 0 and (self.labels is None or self.null_class is None):
            raise InputError("a class can be dropped only with labels and null_class; give both, or drop=0")
        lengths = {f"x_0 {name}".strip(): len(rows) for name, rows in self._fields.items()}
        lengths |= {name: len(z) for name, z in self.latents.items() if isinstance(z, Sized)}
        if self.labels is not None:
            lengths["labels"] = len(self.labels) * self.copies
        if self.mask is not None:
            lengths["mask"] = len(self.mask)
        rows = next(iter(lengths.values()), 0)
        if set(lengths.values()) != {rows} or not rows or rows % self.copies:
            found = ", ".join(f"{name} {count}" for name, count in lengths.items())
            raise InputError(f"arrays need as many rows each, {self.copies} for every item, got {found or 'none'}")

    def __len__(self) -> int:
        return len(next(iter(self._fields.values()))) // self.copies

    def plan(self, epoch: int) -> list[list[int]]:
        """A permutation of the items, cut into batches, by (seed, epoch) alone."""
        return even(permutation(self.seed, epoch, len(self)), self.batch_size, self.whole_batches)

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """Gathers data and classes of some items; `noise` chooses copies and drops classes.

        Latents are a function that gathers those of the same rows: when alignment is off they are not read.
        """
        item = torch.tensor(items, dtype=torch.int64)
        rows = item
        if self.copies > 1:
            rows = item * self.copies + (noise.uniform(()) * self.copies).long()
        c = None
        if self.labels is not None:
            c = self.labels[item.to(self.labels.device)]
            if self.drop > 0 and self.null_class is not None:
                c = torch.where((noise.uniform(()) < self.drop).to(c.device), self.null_class, c)
        x_0 = map_state(lambda held: _single(held.gather(rows)), self.x_0)
        return Batch(
            x_0=x_0 if self.transform is None else self.transform(x_0, noise),
            c=c,
            mask=None if self.mask is None else self.mask.gather(rows),
            z=partial(self._latents, rows) if self.latents else None,
        )

    def resident(self, device: torch.device | str) -> "ArrayData":
        """The same data with its arrays on a device: a small set is then gathered there. Caches stay where they are."""
        return replace(
            self,
            x_0=map_state(lambda held: held.to(device), self.x_0),
            labels=None if self.labels is None else self.labels.to(device),
            latents={name: z.to(device) if isinstance(z, Rows) else z for name, z in self.latents.items()},
            mask=None if self.mask is None else self.mask.to(device),
        )

    def _latents(self, rows: Int64[Tensor, " b"]) -> dict[str, Representation]:
        numbers = rows.tolist()
        return {
            name: Representation(held.gather(rows)) if isinstance(held, Rows) else held.gather(numbers)
            for name, held in self.latents.items()
        }

    @property
    def _fields(self) -> Mapping[str, Rows]:
        return self.x_0 if isinstance(self.x_0, Mapping) else {"": self.x_0}


def _single(value: Tensor) -> Tensor:
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

"""What the network is told beside x_t: which atoms exist, what is known of whole molecules, and which part is given.

A property y is told as (y - mean) / spread, of the molecules trained on; NaN says that it is not known. The condition
in which nothing is known is the null condition of classifier-free guidance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from pydantic import BaseModel, ConfigDict, Field
from reed_core.errors import InputError
from torch import Tensor

from reed_molecule.part import Part


class Property(BaseModel):
    """A property that a model is told, in the units of its training data.

    Attributes:
        name: Its name.
        unit: Its unit; empty where it is not known.
        mean: Mean over the molecules trained on that have it.
        spread: Their standard deviation.
        low: The least value among them.
        high: The greatest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    unit: str = ""
    mean: float
    spread: float = Field(gt=0)
    low: float
    high: float

    @classmethod
    def of(cls, name: str, unit: str, values: Float64[np.ndarray, " n"]) -> "Property":
        """The property of some values, NaN where unknown.

        Raises:
            InputError: If fewer than two values differ.
        """
        known = values[np.isfinite(values)]
        spread = float(known.std()) if len(known) else 0.0
        if spread == 0.0:
            raise InputError(
                f"property {name} is known of {len(known)} of {len(values)} training molecules, with no two values "
                "apart; leave it out of `conditions`"
            )
        return cls(
            name=name, unit=unit, mean=float(known.mean()), spread=spread,
            low=float(known.min()), high=float(known.max()),
        )  # fmt: skip

    def warning(self, value: float) -> str | None:
        """One line if a value lies outside those trained on; None otherwise."""
        if self.low <= value <= self.high:
            return None
        unit = f" {self.unit}" if self.unit else ""
        return (
            f"{self.name} = {value:g} lies outside the values trained on, {self.low:g} to {self.high:g}{unit} "
            f"(mean {self.mean:g}, spread {self.spread:g}); samples need not follow it"
        )


def standardised(properties: Sequence[Property], values: Float64[np.ndarray, "b p"]) -> Float[Tensor, "b p"]:
    """Values as the network is told them, a column a property, in float32; NaN stays NaN."""
    mean = np.array([one.mean for one in properties])
    spread = np.array([one.spread for one in properties])
    return torch.from_numpy((values - mean) / spread).float()


def asked_row(properties: Sequence[Property], asked: Mapping[str, float]) -> Float64[np.ndarray, "1 p"]:
    """One row of what is asked for, NaN for what is left open.

    Raises:
        InputError: If the model is not told such a property, or a value is not finite.
    """
    names = [one.name for one in properties]
    for name, value in asked.items():
        if name not in names:
            there = f"this model is told {', '.join(names)}" if names else "this model is told none"
            raise InputError(f"no property {name!r}: {there}; train one with `conditions` to ask for others")
        if not np.isfinite(value):
            raise InputError(f"property {name} is {value}; expected a finite number")
    return np.array([[asked.get(name, np.nan) for name in names]], dtype=np.float64)


def warnings_of(properties: Sequence[Property], asked: Mapping[str, float]) -> list[str]:
    """One line for every value asked for that lies outside those trained on."""
    lines = [one.warning(asked[one.name]) for one in properties if one.name in asked]
    return [line for line in lines if line is not None]


@dataclass(frozen=True)
class Condition:
    """The condition of a batch of molecules.

    Attributes:
        mask: True where an atom exists, [b, n].
        properties: Standardised properties, [b, p], NaN where unknown; None when nothing is known.
        part: What is given of the molecules; None gives nothing.
    """

    mask: Bool[Tensor, "b n"]
    properties: Float[Tensor, "b p"] | None = None
    part: Part | None = None

    def to(self, device: Any) -> "Condition":
        """The same on a device."""
        properties = None if self.properties is None else self.properties.to(device)
        part = None if self.part is None else self.part.to(device)
        return Condition(self.mask.to(device), properties, part)

    @property
    def null(self) -> "Condition":
        """The same atoms and given part, with nothing known of whole molecules."""
        return replace(self, properties=None)

    def without(self, dropped: Bool[Tensor, "b *p"]) -> "Condition":
        """The same with properties unknown: all of the samples where `dropped` [b] is True, or each of [b, p]."""
        if self.properties is None:
            return self
        where = dropped.to(self.properties.device).reshape(len(self.mask), -1)
        return replace(self, properties=torch.where(where, torch.nan, self.properties))

    @property
    def pairs(self) -> Bool[Tensor, "b n n"]:
        """True for pairs of two different existing atoms."""
        count = self.mask.shape[1]
        both = self.mask[:, :, None] & self.mask[:, None, :]
        same = both.new_ones(count, count).triu(1)
        return both & (same | same.T)

    def masks(self) -> dict[str, Tensor]:
        """The masks of the fields of a state."""
        return {"coords": self.mask, "types": self.mask, "charges": self.mask, "bonds": self.pairs}

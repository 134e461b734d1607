"""What the network is told beside x_t: a class, a text, both or neither."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from reed_core.errors import InputError
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """The condition of a batch of images. `None` in its place is the null condition: no class, no text.

    Attributes:
        label: Class numbers, [b]; -1 is no class. None: no sample has one.
        text: Text tokens, [b, m, text_dim], as a text encoder gives them. None: no sample has any.
        text_mask: True for tokens that exist, [b, m]; None when all do. A sample without any has no text.
    """

    label: Int[Tensor, "b"] | None = None
    text: Float[Tensor, "b m k"] | None = None
    text_mask: Bool[Tensor, "b m"] | None = None

    def __post_init__(self) -> None:
        if self.text_mask is not None and self.text is None:
            raise InputError("a mask of text tokens without text; give both, or neither")

    def to(self, device: Any) -> "Condition":
        """The same on a device."""
        return self._each(lambda value: value.to(device))

    def __getitem__(self, index: slice) -> "Condition":
        """The condition of some samples."""
        return self._each(lambda value: value[index])

    def dropped(self, where: Bool[Tensor, "b"]) -> "Condition":
        """The condition with class and text taken from some samples, as training for guidance does.

        Args:
            where: True for the samples that lose them.
        """
        label, mask = self.label, self.text_mask
        if label is not None:
            label = torch.where(where.to(label.device), -1, label)
        if self.text is not None:
            exists = self.text.new_ones(self.text.shape[:2], dtype=torch.bool) if mask is None else mask
            mask = exists & ~where.to(exists.device)[:, None]
        return Condition(label, self.text, mask)

    def _each(self, change: Any) -> "Condition":
        values = (self.label, self.text, self.text_mask)
        return Condition(*(None if value is None else change(value) for value in values))

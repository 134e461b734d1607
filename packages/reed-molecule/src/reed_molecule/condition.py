"""What the network is told beside x_t: which atoms exist."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """The condition of a batch of molecules.

    Attributes:
        mask: True where an atom exists, [b, n].
    """

    mask: Bool[Tensor, "b n"]

    def to(self, device: Any) -> "Condition":
        """The same on a device."""
        return Condition(self.mask.to(device))

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

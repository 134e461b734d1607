"""What a trainer needs of data: batches in a fixed order that can be entered anywhere."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from reed_core.latent import Representations
from reed_core.noise import NoiseSource
from reed_core.state import State


@dataclass(frozen=True)
class Batch:
    """One training batch, as the objective takes it.

    Attributes:
        x_0: Clean data, [b, ...], or a mapping of fields.
        c: The condition, or None.
        mask: True where an element exists, [b, n], or None; for fields, one for all or a mapping.
        z: Latents, or a function that makes them and is called only when alignment is on; it draws nothing.
        weight: Weight of each sample in the loss, [b], or None.
    """

    x_0: State
    c: Any = None
    mask: State = None
    z: Representations | Callable[[], Representations] | None = None
    weight: Float[Tensor, "b"] | None = None


@runtime_checkable
class DataSource(Protocol):
    """Training data. The same epoch number always gives the same plan, so a run can resume anywhere."""

    def plan(self, epoch: int) -> Sequence[Sequence[int]]:
        """The batches of an epoch, as lists of item numbers: at least one batch, and none empty."""
        ...

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        """Builds one batch, or a part of one; `noise` (one stream per item) serves any augmentation.

        It may be called from another thread, ahead of the step: draw from `noise` alone, never from global generators.
        """
        ...

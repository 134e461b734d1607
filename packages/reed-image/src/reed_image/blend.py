"""Between two conditions: predictions mixed, sample by sample, so that a row of pictures goes from class to class.

    out = (1 - w) e(c) + w e(c')        w = 0 is the first, w = 1 the second, to the bit
It is the line of every guidance (`reed_core.sample.combine`); what lies between is no draw of either class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from reed_core.latent import Revealed
from reed_core.sample.combine import Conditional, Term, ask, combine
from reed_core.state import State
from torch import Tensor


@dataclass(frozen=True)
class Blend:
    """A denoiser that mixes what it is told with a second condition.

    Attributes:
        denoiser: The model, or a guidance around it.
        other: The second condition.
        share: Its share, w, of each sample.
    """

    denoiser: Conditional
    other: Any
    share: Float[Tensor, "b"]

    def __call__(
        self, x_t: State, t: Float[Tensor, "b"], c: Any = None, z: Mapping[str, Revealed] | None = None
    ) -> State:
        """The mixed prediction."""
        return combine(
            [
                Term(1.0 - self.share, lambda: ask(self.denoiser, x_t, t, c, z)),
                Term(self.share, lambda: ask(self.denoiser, x_t, t, self.other, z)),
            ]
        )

"""What is compared in place of pictures: the features of a frozen network, by whichever extractor."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor


class Features(NamedTuple):
    """What an extractor says of a batch.

    Attributes:
        pooled: One vector for each picture.
        logits: Of a classifier, where the network has one.
    """

    pooled: Float[Tensor, "b d"]
    logits: Float[Tensor, "b k"] | None


@runtime_checkable
class Extractor(Protocol):
    """A frozen network, called with 8-bit pictures.

    Attributes:
        name: As it stands in the names of figures.
        fingerprint: Changes when features may: weights, and how pictures are brought to their size.
        preprocessing: The second in words.
        classifies: Whether it has logits.
    """

    name: str
    fingerprint: str
    preprocessing: str
    classifies: bool

    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> Features:
        """Features of a batch, float32, where the network runs."""
        ...

"""The tokens of the caption of each picture, as what the network is told: what `featurize` writes for a recipe's text.

A caption is that of the picture's name, or without captions the name of its class. A mirrored copy has the same one.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation.identity import named
from torch import Tensor

from reed_image.data.prepared import Named
from reed_image.data.source import digest
from reed_image.encoders.reader import Reader


class CaptionTokens:
    """Captions as tokens, [b, most, width], known where a token exists.

    Args:
        reader: Reads texts.
        captions: Captions by the name of the picture; None takes the names of classes.
        most: Tokens of a caption at most: rows of each picture.
        partial: Whether pictures may lack a caption; none of their tokens exists then.
    """

    name = "text"
    level: Literal["token"] = "token"

    def __init__(self, reader: Reader, captions: Mapping[str, str] | None, most: int, partial: bool = False) -> None:
        self.reader, self.captions, self.most, self.partial = reader, captions, most, partial
        self.dim = reader.dim

    @property
    def module(self) -> Any:
        """The network that reads, if there is one: what is moved to a device."""
        return getattr(self.reader, "module", None)

    @property
    def fingerprint(self) -> str:
        """The reader's, and the hash of the captions."""
        said = "classes" if self.captions is None else digest(sorted(self.captions.items()))
        parts = {"reader": self.reader.fingerprint, "captions": said, "version": f"tokens-1,{self.most}"}
        return named(parts)

    def __call__(self, x_0: Tensor, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Reads the captions of a batch, whose `c` is `Named`.

        Raises:
            InputError: If a picture has no caption.
        """
        if not isinstance(c, Named):
            raise InputError("captions are found by the names of the pictures; give the items of prepared pictures")
        said = [self._caption(c, row) for row in range(len(c.names))]
        z = torch.zeros(len(said), self.most, self.dim)
        known = torch.zeros(len(said), self.most, dtype=torch.bool)
        rows = [row for row, text in enumerate(said) if text is not None]
        if rows:
            found = self.reader([text for text in said if text is not None])
            z[rows, : found.value.shape[1]] = found.value
            known[rows, : found.mask.shape[1]] = found.mask
        return Representation(z, known)

    def _caption(self, c: Named, row: int) -> str | None:
        if self.captions is None:
            label = int(c.labels[row])
            found = c.classes[label].replace("_", " ") if 0 <= label < len(c.classes) else None
        else:
            found = self.captions.get(c.names[row])
        if found is None and not self.partial:
            raise InputError(
                f"no caption for {c.names[row]}; write one, give a file of captions where classes have no names, or "
                "allow pictures without (partial)"
            )
        return found

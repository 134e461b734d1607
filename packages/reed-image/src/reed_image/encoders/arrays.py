"""Representations that were computed elsewhere: rows of an array, by the name of the picture.

    z.npy       [m, d] or [m, n, d]
    names.txt   m lines: the names, as the source of pictures has them

Rows need no order, and there may be more of them. One vector serves a picture and its mirrored copy; of the tokens of
a mirrored copy nothing is known, as no network's tokens are mirrored exactly.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.files import sha256
from reed_core.latent import Representation
from torch import Tensor

from reed_image.data.prepared import Named
from reed_image.data.source import digest


class ArrayEncoder:
    """An array on disk as z.

    Args:
        array: A `.npy` file, mapped and not read.
        names: A text file with the name of each row.
        name: A short name.
        partial: Whether pictures may lack a row; their z is then unknown.

    Raises:
        InputError: If the files cannot be read or do not fit, or a name stands twice.
    """

    def __init__(self, array: Path, names: Path, *, name: str = "arrays", partial: bool = False) -> None:
        self.name, self.partial, self.path = name, partial, Path(array)
        try:
            self.values = np.load(array, mmap_mode="r", allow_pickle=False)
            rows = Path(names).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{array} with {names} cannot be read ({type(error).__name__}); write them again"
            ) from error
        if self.values.ndim not in (2, 3) or not np.issubdtype(self.values.dtype, np.floating):
            raise InputError(
                f"{array} is {self.values.dtype} {list(self.values.shape)}; expected real [m, d] or [m, n, d]"
            )
        self._row = {row: place for place, row in enumerate(rows)}
        if len(rows) != len(self.values) or len(self._row) != len(rows):
            raise InputError(
                f"{array} has {len(self.values)} rows, {names} has {len(rows)} names, {len(self._row)} of them "
                "different; expected one name for each row"
            )
        self.level: Literal["token", "global"] = "global" if self.values.ndim == 2 else "token"
        self.dim = int(self.values.shape[-1])

    @cached_property
    def fingerprint(self) -> str:
        """The hash of the file and of the names."""
        return digest(("arrays 1", sha256(self.path), tuple(self._row), self.partial))

    def __call__(self, x_0: Tensor, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Looks up the rows of a batch, whose `c` is `Named`.

        Raises:
            InputError: If a picture has no row.
        """
        if not isinstance(c, Named):
            raise InputError("rows are found by the names of the pictures; give the items of prepared pictures")
        known = torch.tensor([name in self._row for name in c.names])
        if not self.partial and not bool(known.all()):
            lacking = c.names[int((~known).nonzero()[0])]
            raise InputError(f"no row for {lacking} in {self.path}; add one, or allow pictures without (partial)")
        z = torch.zeros(len(c.names), *self.values.shape[1:])
        for place, name in enumerate(c.names):
            if name in self._row:
                z[place] = torch.from_numpy(self.values[self._row[name]].astype(np.float32))
        if self.level == "global":
            return Representation(z, known)
        return Representation(z, (known & ~c.mirrored)[:, None].expand(z.shape[:-1]).clone())

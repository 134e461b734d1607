"""An encoder whose z has mean 0 and variance 1 in every place over a sample of the training molecules.

Features of unlike units would otherwise be a single direction, that of the largest. Mean and variance come from up to
SAMPLE molecules, evenly spread over the set: the same for every worker that computes them. Values are cut at LIMIT
deviations, so a rare feature does not drown the others; a feature that never varies becomes 0.
"""

from typing import Any

import torch
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import Encoder, named
from reed_core.state import State
from torch import Tensor

from reed_molecule.encoders.clean import CleanMolecules

SAMPLE = 2048
LIMIT = 5.0
_AT_ONCE = 64
_STILL = 1e-6


class Standardised:
    """An encoder of numbers, standardised.

    Args:
        encoder: The encoder.
        data: The training molecules.

    Raises:
        InputError: If the encoder knows nothing of any of the sample.
    """

    def __init__(self, encoder: Encoder, data: CleanMolecules) -> None:
        self.encoder, self.name, self.dim, self.level = encoder, encoder.name, encoder.dim, encoder.level
        self.fingerprint = named({"of": encoder.fingerprint, "code": "standardised-1", "data": data.fingerprint})
        count = min(SAMPLE, len(data))
        chosen = [place * len(data) // count for place in range(count)]
        rows = torch.cat([self._rows(data, chosen[at : at + _AT_ONCE]) for at in range(0, count, _AT_ONCE)])
        if not len(rows):
            raise InputError(f"encoder {encoder.name} knows nothing of any molecule of this set; choose another latent")
        self.mean = rows.mean(0)
        deviation = rows.var(0, correction=0).sqrt()
        self.factor = torch.where(deviation > _STILL, 1.0 / deviation.clamp(min=_STILL), 0.0)

    def _rows(self, data: CleanMolecules, items: list[int]) -> Tensor:
        batch = data.batch(items)
        found = self.encoder(batch.x_0, batch.c, batch.mask)
        return (found.z if found.mask is None else found.z[found.mask]).reshape(-1, self.dim).double()

    def __call__(self, x_0: State, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Standardised values; 0 where unknown."""
        found = self.encoder(x_0, c, mask)
        z = ((found.z - self.mean.to(found.z)) * self.factor.to(found.z)).clamp(-LIMIT, LIMIT)
        return Representation(z if found.mask is None else torch.where(found.mask[..., None], z, 0.0), found.mask)

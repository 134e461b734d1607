"""A latent that diffuses beside x: its leading principal components, each brought to mean 0 and deviation 1.

field = ((z - mean) C^T) / scale        C [k, d], orthonormal; mean, C and scale fitted once, and kept in the weights
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation.basis import fit_basis
from reed_core.train.arrays import Gathers
from torch import Tensor, nn

SAMPLE, BATCH = 4096, 64


class Projection(nn.Module):
    """Representations as a field; buffers alone, nothing is trained.

    Args:
        dim: Width of z.
        components: Channels of the field.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, dim: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("components", torch.eye(components, dim))
        self.register_buffer("scale", torch.ones(components))

    def forward(self, z: Float[Tensor, "b *n d"]) -> Float[Tensor, "b *n k"]:
        """The field of some z."""
        return (z.to(self.mean) - self.mean) @ self.components.T / self.scale

    @torch.no_grad()
    def fit(self, held: Gathers, items: int) -> None:
        """Sets the components from items spread evenly over the data.

        Args:
            held: The z of items.
            items: How many there are.

        Raises:
            InputError: If some z is unknown, or the sample does not determine as many components.
        """
        count = min(items, SAMPLE)
        chosen = [place * items // count for place in range(count)]
        rows = [known(held.gather(chosen[at : at + BATCH])) for at in range(0, count, BATCH)]
        wide = [part.flatten(0, -2) for part in rows]
        basis = fit_basis(wide, len(self.mean), len(self.scale))
        self.mean.copy_(basis.mean)
        self.components.copy_(basis.components)
        self.scale.fill_(1.0)
        deviation = torch.cat([self(part) for part in wide]).double().std(0, correction=0)
        if not bool((deviation > 1e-6).all()):
            raise InputError(
                f"z varies along fewer than {len(self.scale)} directions; set `components` to fewer, or take another"
            )
        self.scale.copy_(deviation)


@dataclass(frozen=True)
class FieldRows:
    """The field of prepared pictures, by the number of the item.

    Attributes:
        held: Their z.
        projection: What makes the field of them.
    """

    held: Gathers
    projection: Projection

    @torch.no_grad()
    def gather(self, items: Sequence[int]) -> Float[Tensor, "b n k"]:
        """The field of some items, on the CPU; one row if z is global."""
        z = known(self.held.gather(items)).to(self.projection.mean.device)
        return self.projection(z if z.ndim == 3 else z[:, None]).cpu()


def known(found: Representation) -> Float[Tensor, "b *n d"]:
    """The z of a batch, in float32.

    Raises:
        InputError: If it is unknown somewhere.
    """
    if found.mask is not None and not bool(found.mask.all()):
        raise InputError("a joint latent has to be known of every picture and its mirrored copy; take another")
    return found.z.float()

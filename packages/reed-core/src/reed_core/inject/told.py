"""What an adapter is told: z where it is shown and known, a learned null token elsewhere.

told = where(shown and known, z, null)        p_c where z is shown, p_u where it is not, one network (THEORY D14)
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.latent import Revealed


class Told(nn.Module):
    """The null token of one latent, and the embedding of its classes.

    Args:
        name: The latent.
        dim: Width of z; for classes, of their embedding.
        num_classes: Number of classes when z are class indices (-1: unknown); None when z are vectors.
    """

    def __init__(self, name: str, dim: int, num_classes: int | None = None) -> None:
        super().__init__()
        self.name, self.dim = name, dim
        self.null = nn.Parameter(torch.randn(dim) / dim**0.5)
        self.classes = None if num_classes is None else nn.Embedding(num_classes, dim)

    def forward(self, revealed: Revealed | None, count: int, tokens: int | None = None) -> Float[Tensor, "b ..."]:
        """[b, d] or [b, n, d]: z, or the null token.

        Args:
            revealed: z, or None when the latent is not revealed to anyone.
            count: Batch size, b.
            tokens: Number of null tokens when there is no z; None gives [b, d].
        """
        if revealed is None:
            return self.null.expand(*((count,) if tokens is None else (count, tokens)), self.dim)
        z, known = self.split(revealed)
        return torch.where(known[..., None], z, self.null)

    def split(self, revealed: Revealed) -> tuple[Float[Tensor, "b *n d"], Bool[Tensor, "b *n"]]:
        """The values as vectors, and where it is shown and known.

        Raises:
            InputError: If z has another width, or is no class index.
        """
        z = revealed.z.to(self.null.device)
        if self.classes is not None:
            if z.is_floating_point():
                raise InputError(f"latent '{self.name}': expected class indices, got {z.dtype}; pass integers")
            known = z >= 0
            z = self.classes(z.clamp(min=0))
        else:
            if z.ndim < 2 or z.shape[-1] != self.dim:
                raise InputError(
                    f"latent '{self.name}': z has the shape {tuple(z.shape)}; its adapter takes {self.dim} features "
                    "on the last axis; set the adapter's dim to the width of z"
                )
            z = z.to(self.null.dtype)
            known = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device)
        for mask in (revealed.mask, revealed.shown):
            if mask is not None:
                mask = mask.to(z.device)
                known = known & mask.reshape(*mask.shape, *([1] * (known.ndim - mask.ndim)))
        return z, known

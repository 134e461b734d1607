"""Projectors: small MLPs from a hidden state of the denoiser to the prediction of a latent."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class Projector(nn.Sequential):
    """Linear layers with SiLU between them (three in REPA, arXiv 2410.06940, appendix).

    Args:
        input_dim: Width of the hidden state.
        output_dim: Width of the prediction.
        hidden: Width of the inner layers.
        layers: Number of linear layers, at least 1.
    """

    def __init__(self, input_dim: int, output_dim: int, hidden: int = 256, layers: int = 3) -> None:
        widths = [input_dim, *[hidden] * (layers - 1), output_dim]
        modules: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            modules += [nn.SiLU()] if modules else []
            modules.append(nn.Linear(width_in, width_out))
        super().__init__(*modules)

    def forward(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b k"]:
        """Maps the last axis."""
        return super().forward(hidden)

"""A block of SiT, and the last layer: adaLN-zero (arXiv 2212.09748, section 3.2).

With c the embedding of time and class, and norm(x) a LayerNorm without parameters:
    (shift, scale, gate)_1, (shift, scale, gate)_2 = W silu(c) + b,     W = 0 and b = 0 at the start
    x <- x + gate_1 attention(norm(x) (1 + scale_1) + shift_1)
    x <- x + text attention(norm(x), text)                              only in a network that reads text
    x <- x + gate_2 mlp(norm(x) (1 + scale_2) + shift_2)
so every block is the identity at the start.
"""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from reed_image.network.attention import SelfAttention, TextAttention
from reed_image.network.config import SiTConfig


class Modulation(nn.Module):
    """Vectors from the conditioning vector, all zero at the start.

    Args:
        width: Width of each.
        parts: How many.
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)

    def forward(self, c: Float[Tensor, "b d"]) -> tuple[Float[Tensor, "b 1 d"], ...]:
        """The vectors, ready to be applied to every token."""
        return self.linear(nn.functional.silu(c))[:, None].chunk(self.parts, -1)


class Mlp(nn.Module):
    """Linear, GELU in its tanh form, linear.

    Args:
        width: Width of states.
        hidden: Width between.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, hidden)
        self.outer = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Applies it to each token."""
        return self.outer(nn.functional.gelu(self.inner(x), approximate="tanh"))


class Block(nn.Module):
    """One block; its output [b, n, width] is what a tap at `blocks.k` reads.

    Args:
        config: Sizes.
    """

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, 6)
        self.attention = SelfAttention(width, config.heads, config.qk_norm)
        self.text = TextAttention(width, config.heads, config.qk_norm) if config.text_dim else None
        self.mlp = Mlp(width, int(width * config.mlp_ratio))

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        c: Float[Tensor, "b d"],
        text: Float[Tensor, "b m d"] | None = None,
        text_mask: Bool[Tensor, "b m"] | None = None,
        rope: Float[Tensor, "2 n pairs"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """Applies the block.

        Args:
            x: Hidden states.
            c: Embedding of time and class.
            text: Text tokens.
            text_mask: True for tokens that exist.
            rope: Cosines and sines of rotary positions.
        """
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c)
        x = x + gate_1 * self.attention(self.norm(x) * (1 + scale_1) + shift_1, rope)
        if self.text is not None:
            x = x + self.text(self.norm(x), text, text_mask)
        return x + gate_2 * self.mlp(self.norm(x) * (1 + scale_2) + shift_2)


class Final(nn.Module):
    """The last layer: a modulated norm and a linear map to the pixels of a patch, zero at the start.

    Args:
        width: Width of states.
        pixels: Numbers of a patch.
    """

    def __init__(self, width: int, pixels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = Modulation(width, 2)
        self.linear = nn.Linear(width, pixels)

    def forward(self, x: Float[Tensor, "b n d"], c: Float[Tensor, "b d"]) -> Float[Tensor, "b n p"]:
        """Predicts patches."""
        shift, scale = self.modulation(c)
        return self.linear(self.norm(x) * (1 + scale) + shift)

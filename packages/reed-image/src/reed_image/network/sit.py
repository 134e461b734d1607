"""SiT: a transformer on the patches of x_t that predicts v (arXiv 2401.08740; the network is DiT's, arXiv 2212.09748).

    tokens   = patches of x_t, each a vector (channel, row, column), times a matrix, plus fixed positions
    c        = embedding of t + embedding of the class
    tokens  <- block_k(tokens, c), k = 1 ... depth
    v        = patches of final(tokens, c), each a vector (row, column, channel)
A network of two fields (ReDi, arXiv 2504.16064) takes {"x": ..., "z": ...}, adds a matrix times each row of z to its
patch, and says both. t = 0 is data and t = 1 is noise; what is predicted is what the process asks
(`Interpolant.prediction`), v by default. The null class and the null text, which classifier-free guidance needs, are
the network's own: `net(x_t, t, None)`.
"""

from collections.abc import Mapping

from jaxtyping import Float
from reed_core.errors import InputError
from reed_core.state import State
from torch import Tensor, nn

from reed_image.network.attention import TextAttention, rope_table
from reed_image.network.block import Block, Final, Modulation
from reed_image.network.condition import Condition
from reed_image.network.config import SiTConfig
from reed_image.network.embedding import LabelEmbedding, TextEmbedding, TimeEmbedding, place_table


class SiT(nn.Module):
    """The network. Depth k is read at `blocks.<k-1>`: hidden states [b, n, width], patches row by row.

    Args:
        config: Sizes; those of SiT-S/2 by default.
    """

    Config = SiTConfig
    places: Tensor
    rope: Tensor | None

    def __init__(self, config: SiTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SiTConfig()
        pixels = config.channels * config.patch**2
        self.patch = nn.Linear(pixels, config.width)
        self.time = TimeEmbedding(config.width)
        self.label = LabelEmbedding(config.classes, config.width) if config.classes else None
        self.text = TextEmbedding(config.text_dim, config.width) if config.text_dim else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final = Final(config.width, 2 * pixels if config.learn_sigma else pixels)
        self.joint = Field(config) if config.joint else None
        self.register_buffer("places", place_table(config.width, config.grid), persistent=False)
        rope = rope_table(config.width // config.heads, config.grid) if config.rope else None
        self.register_buffer("rope", rope, persistent=False)
        self._initialise()

    def forward(self, x_t: State, t: Float[Tensor, "b"], c: Condition | None = None) -> State:
        """Predicts v (or what else the process asks) of x_t at times t, in the form of x_t.

        Args:
            x_t: Corrupted images or latents, [b, channels, size, size]; of two fields, "x" of that form and "z", [b, n,
                joint] (one row if pooled).
            t: Times in [0, 1].
            c: What is known; None is the null condition.

        Raises:
            InputError: If x_t has another shape, or the condition holds what the network cannot read.
        """
        config, c = self.config, c or Condition()
        x_t, z_t = self._fields(x_t)
        self._check(x_t, c)
        count, dtype = x_t.shape[0], self.patch.weight.dtype
        x = self.patch(self._to_patches(x_t.to(dtype))) + self.places.to(dtype)
        if self.joint is not None:
            x = x + self.joint.enter(z_t.to(dtype))
        vector = self.time(t)
        if self.label is not None:
            vector = vector + self.label(c.label, count)
        text, mask = (None, None) if self.text is None else self.text(c.text, c.text_mask, count)
        for block in self.blocks:
            x = block(x, vector, text, mask, self.rope)
        said = self.final(x, vector).unflatten(-1, (config.patch, config.patch, -1))[..., : config.channels]
        said = self._from_patches(said).to(x_t.dtype)
        return said if self.joint is None else {"x": said, "z": self.joint(x, vector).to(z_t.dtype)}

    def _fields(self, x_t: State) -> tuple[Tensor, Tensor]:
        """X and z; without a second field, x twice."""
        if self.joint is None:
            if isinstance(x_t, Mapping):
                raise InputError("two fields were given to a network of one; give x alone, or set `joint`")
            return x_t, x_t
        shape = self.config.joint_shape
        if not isinstance(x_t, Mapping) or set(x_t) != {"x", "z"} or tuple(x_t["z"].shape[1:]) != shape:
            raise InputError(f"the network takes two fields, x and z of the shape {shape}; give both")
        return x_t["x"], x_t["z"]

    def _to_patches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n p"]:
        grid, patch = self.config.grid, self.config.patch
        parts = x.unflatten(2, (grid, patch)).unflatten(4, (grid, patch))  # b c i p j q
        return parts.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def _from_patches(self, patches: Float[Tensor, "b n p q c"]) -> Float[Tensor, "b c h w"]:
        grid = self.config.grid
        parts = patches.unflatten(1, (grid, grid))  # b i j p q c
        return parts.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def _check(self, x_t: Tensor, c: Condition) -> None:
        config = self.config
        if tuple(x_t.shape[1:]) != (config.channels, config.size, config.size):
            raise InputError(
                f"x has the shape {tuple(x_t.shape[1:])}, the network takes "
                f"{(config.channels, config.size, config.size)}; give data of that size, or build another network"
            )
        if c.label is not None and self.label is None:
            raise InputError("a class was given to a network without classes; leave it out, or set `classes`")
        if c.text is not None and c.text.shape[-1] != config.text_dim:
            raise InputError(
                f"text tokens have the width {c.text.shape[-1]}, the network reads "
                f"{config.text_dim or 'no text'}; give text of that width, or set `text_dim`"
            )

    def _initialise(self) -> None:
        """The published start: Xavier matrices in blocks and patches; modulations, text outputs and last layer zero."""
        for module in [self.patch, *self.blocks.modules(), *([] if self.joint is None else self.joint.modules())]:
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, (Modulation, TextAttention)):
                last = module.linear if isinstance(module, Modulation) else module.out
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
        for end in [self.final, *([] if self.joint is None else [self.joint.final])]:
            nn.init.zeros_(end.linear.weight)
            nn.init.zeros_(end.linear.bias)


class Field(nn.Module):
    """The second field: how it enters, and what is said of it.

    Args:
        config: Sizes.
    """

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self.pooled = config.joint_pooled
        self.enter = nn.Linear(config.joint, config.width)
        self.final = Final(config.width, config.joint)

    def forward(self, x: Float[Tensor, "b n d"], c: Float[Tensor, "b d"]) -> Float[Tensor, "b m k"]:
        """Predicts a row for each patch, or their mean."""
        said = self.final(x, c)
        return said.mean(1, keepdim=True) if self.pooled else said

"""Sizes of SiT, and the published ones (arXiv 2212.09748, table 1; arXiv 2401.08740)."""

from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from reed_core.errors import InputError


class SiTConfig(BaseModel):
    """Sizes and options of SiT. The defaults beside the sizes are those of the published networks.

    Attributes:
        size: Height and width of x: 32 for images of 256 pixels in an autoencoder that divides them by 8.
        channels: Channels of x; 3 for pixels.
        patch: Side of a patch; a divisor of `size`.
        width: Width of hidden states.
        depth: Number of blocks.
        heads: Attention heads; a divisor of `width`.
        classes: Number of classes; 0 for a network that is told no class.
        text_dim: Width of text tokens; 0 for a network that reads no text.
        mlp_ratio: Width of a hidden layer of a block's MLP, in widths.
        qk_norm: Whether queries and keys are normalised per head (LayerNorm), which keeps attention in bounds.
        rope: Whether queries and keys are rotated by their place, beside the fixed positions that are added to x.
        learn_sigma: Whether the last layer has outputs that nobody reads, as the published SiT weights have.
        joint: Channels of a second field that diffuses beside x, one row for each patch; 0 for x alone.
        joint_pooled: Whether that field has one row in all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(32, ge=1)
    channels: int = Field(4, ge=1)
    patch: int = Field(2, ge=1)
    width: int = Field(384, ge=8)
    depth: int = Field(12, ge=1)
    heads: int = Field(6, ge=1)
    classes: int = Field(1000, ge=0)
    text_dim: int = Field(0, ge=0)
    mlp_ratio: float = Field(4.0, gt=0)
    qk_norm: bool = False
    rope: bool = False
    learn_sigma: bool = False
    joint: int = Field(0, ge=0)
    joint_pooled: bool = False

    @model_validator(mode="after")
    def _divisible(self) -> "SiTConfig":
        if self.size % self.patch:
            raise ValueError(f"patch {self.patch} must divide size {self.size}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"heads {self.heads} and 4 must divide width {self.width}")
        if self.rope and (self.width // self.heads) % 4:
            raise ValueError(f"rope needs heads whose width is a multiple of 4, not {self.width // self.heads}")
        return self

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.size // self.patch

    @property
    def joint_shape(self) -> tuple[int, int]:
        """Rows and channels of the second field."""
        return (1 if self.joint_pooled else self.tokens), self.joint

    @property
    def tokens(self) -> int:
        """Number of patches."""
        return self.grid**2


class Size(NamedTuple):
    """What the letter in SiT-XL/2 stands for; the number is the patch."""

    depth: int
    width: int
    heads: int


SIZES = {"S": Size(12, 384, 6), "B": Size(12, 768, 12), "L": Size(24, 1024, 16), "XL": Size(28, 1152, 16)}


def preset(name: str, patch: int = 2, **changes: Any) -> SiTConfig:
    """A published size: `preset("XL", 2)` is SiT-XL/2.

    Args:
        name: A key of `SIZES`.
        patch: Side of a patch.
        changes: Other fields of `SiTConfig`.

    Raises:
        InputError: If there is no such size, or the fields do not fit together.
    """
    if name not in SIZES:
        raise InputError(f"no size '{name}'; choose one of {', '.join(SIZES)}, or give depth, width and heads yourself")
    try:
        return SiTConfig.model_validate({**SIZES[name]._asdict(), "patch": patch, **changes})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'sizes'}: {item['msg']}" for item in error.errors())
        raise InputError(f"SiT-{name}/{patch}: {problems}; correct the sizes") from error

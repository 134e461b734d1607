"""Adapters: where and how z of one latent enters the hidden state x of a network.

    AdaLN           x <- x * (1 + scale(z)) + shift(z)                      z of the sample, or of the same elements
    CrossAttention  x <- x + W attention(norm(x), z)                        z of any elements
    Token           [embed(z), x_1, ..., x_n] from one module to another    z of the sample, or a fixed number of tokens
scale, shift and W are zero at the start, so that the network first does exactly what it did without z. `Token` has no
such start: its tokens take part in attention at once. Where z is not shown, its null token takes its place (`Told`).
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.inject.told import Told
from reed_core.latent import Revealed


class Entry(NamedTuple):
    """One change of a hidden state.

    Attributes:
        at: Path of the module in the network.
        change: The new hidden state, from the old one and z (None: not revealed to anyone).
        before: Whether the first input of the module is changed, rather than its (first) output.
    """

    at: str
    change: Callable[[Tensor, Revealed | None], Tensor]
    before: bool = False


@runtime_checkable
class Adapter(Protocol):
    """A torch module that lets one latent in."""

    @property
    def name(self) -> str:
        """The latent."""
        ...

    def entries(self) -> tuple[Entry, ...]:
        """The changes it makes, in the order in which they run."""
        ...


class AdaLN(nn.Module):
    """Scales and shifts the output of a module by zero-initialised functions of z.

    Args:
        name: The latent.
        dim: Width of z; for classes, of their embedding.
        at: Path of the module.
        width: Width of its output (the last axis).
        num_classes: Number of classes when z are class indices.
    """

    def __init__(self, name: str, dim: int, at: str, width: int, num_classes: int | None = None) -> None:
        super().__init__()
        self.name, self.at, self.width = name, at, width
        self.told = Told(name, dim, num_classes)
        self.modulate = nn.Sequential(nn.Linear(dim, width), nn.SiLU(), _zero(nn.Linear(width, 2 * width)))

    def entries(self) -> tuple[Entry, ...]:
        """The output of the module at `at`."""
        return (Entry(self.at, self.forward),)

    def forward(self, x: Float[Tensor, "b *n w"], revealed: Revealed | None) -> Float[Tensor, "b *n w"]:
        """The modulated state.

        Raises:
            InputError: If x has another width, or z belongs to other elements than x.
        """
        _check_width(self, x)
        modulation = self.modulate(self.told(revealed, x.shape[0])).to(x.dtype)
        if modulation.ndim == 2:
            modulation = modulation.reshape(x.shape[0], *([1] * (x.ndim - 2)), -1)
        elif modulation.shape[:-1] != x.shape[:-1]:
            raise InputError(
                f"latent '{self.name}' has elements {tuple(modulation.shape[:-1])}, the state at '{self.at}' "
                f"{tuple(x.shape[:-1])}; AdaLN needs the same; use CrossAttention"
            )
        scale, shift = modulation.chunk(2, -1)
        return x * (1 + scale) + shift


class CrossAttention(nn.Module):
    """Hidden tokens attend to the tokens of z. Zero-initialised. A global z is one token: there is nothing to choose.

    Unknown tokens of z are never seen. A sample that is shown none of them attends to the null token. Attention tells
    tokens of z apart by their content alone.

    Args:
        name: The latent.
        dim: Width of z; for classes, of their embedding.
        at: Path of the module whose output attends.
        width: Width of that output, a multiple of `heads`.
        heads: Number of attention heads.
        num_classes: Number of classes when z are class indices.
    """

    def __init__(
        self, name: str, dim: int, at: str, width: int, heads: int = 4, num_classes: int | None = None
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"a width of {width} does not split into {heads} heads; choose a divisor")
        self.name, self.at, self.width, self.heads = name, at, width, heads
        self.told = Told(name, dim, num_classes)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(dim, 2 * width)
        self.leave = _zero(nn.Linear(width, width))

    def entries(self) -> tuple[Entry, ...]:
        """The output of the module at `at`."""
        return (Entry(self.at, self.forward),)

    def forward(self, x: Float[Tensor, "b *n w"], revealed: Revealed | None) -> Float[Tensor, "b *n w"]:
        """The state, with what it read of z.

        Raises:
            InputError: If x has another width.
        """
        _check_width(self, x)
        count = x.shape[0]
        null = self.told(None, count, 1)
        if revealed is None:
            z, seen = null, torch.ones(count, 1, dtype=torch.bool, device=x.device)
        else:
            value, known = self.told.split(revealed)
            known = known.reshape(count, -1)
            value = torch.where(known[..., None], value.reshape(count, -1, value.shape[-1]), 0.0)
            z, seen = torch.cat([null, value], 1), torch.cat([~known.any(1, keepdim=True), known], 1)
        query = self.query(self.norm(x.to(z.dtype)).reshape(count, -1, self.width))
        key, value = self.key_value(z).chunk(2, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        read = F.scaled_dot_product_attention(query, key, value, attn_mask=seen[:, None, None])
        return x + self.leave(read.transpose(1, 2).flatten(2)).reshape(x.shape).to(x.dtype)


class Token(nn.Module):
    """Puts z in front of a sequence of tokens at one module, and takes it out again after another.

    Everything between sees a longer sequence: a module that takes a mask or positions of tokens has to allow for it.
    The network with this adapter is not the one without it, not even at the start.

    Args:
        name: The latent.
        dim: Width of z; for classes, of their embedding.
        at: Path of the module whose first input, [b, n, w], gets the tokens.
        until: Path of the module whose (first) output loses them; it may be the same.
        width: Width of that sequence.
        tokens: Number of tokens of z: 1 for a global z.
        num_classes: Number of classes when z are class indices.
    """

    def __init__(
        self, name: str, dim: int, at: str, until: str, width: int, tokens: int = 1, num_classes: int | None = None
    ) -> None:
        super().__init__()
        self.name, self.at, self.until, self.width, self.tokens = name, at, until, width, tokens
        self.told = Told(name, dim, num_classes)
        self.embed = nn.Linear(dim, width)

    def entries(self) -> tuple[Entry, ...]:
        """The input of the module at `at`, and the output of the module at `until`."""
        return Entry(self.at, self.forward, before=True), Entry(self.until, self.remove)

    def forward(self, x: Float[Tensor, "b n w"], revealed: Revealed | None) -> Float[Tensor, "b m w"]:
        """The sequence with z in front.

        Raises:
            InputError: If x has another width, or z another number of tokens.
        """
        _check_width(self, x)
        z = self.told(revealed, x.shape[0], self.tokens)
        z = z[:, None] if z.ndim == 2 else z
        if z.shape[1] != self.tokens:
            raise InputError(
                f"latent '{self.name}' has {z.shape[1]} tokens; its adapter was made for {self.tokens}; set tokens"
            )
        return torch.cat([self.embed(z).to(x.dtype), x], 1)

    def remove(self, x: Float[Tensor, "b m w"], revealed: Revealed | None) -> Float[Tensor, "b n w"]:
        """The sequence without the tokens in front."""
        return x[:, self.tokens :]


def _zero(linear: nn.Linear) -> nn.Linear:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _check_width(adapter: AdaLN | CrossAttention | Token, x: Tensor) -> None:
    if x.shape[-1] != adapter.width:
        raise InputError(
            f"the state at '{adapter.at}' has {x.shape[-1]} features on its last axis; the adapter of latent "
            f"'{adapter.name}' takes {adapter.width}; set its width"
        )

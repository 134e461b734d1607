"""Encoders: what turns a clean sample x_0 into its representation z, and how to tell one encoder from another.

An encoder is a fixed function of (x_0, c): it sees no time, no noise and no gradient. Its fingerprint is a string that
changes whenever its values may: with the weights, the preprocessing or the version; made of named parts
(`reed_core.representation.identity`), it lets a cache say which of them changed. A cache of z is as good as the
fingerprint it was written under (`reed_core.representation.cache`).
"""

import hashlib
from collections.abc import Callable
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from reed_core.denoiser import Tap
from reed_core.errors import InputError
from reed_core.latent import Representation, pool_tokens
from reed_core.representation.identity import named

Level = Literal["token", "pair", "global"]
Inputs = Callable[[Tensor, Any, Bool[Tensor, "b n"] | None], tuple[Any, ...]]


@runtime_checkable
class Encoder(Protocol):
    """A frozen function from clean data to one representation.

    Attributes:
        name: A short name, as of the latent it supplies.
        dim: Width of z.
        level: "token" (z: [b, n, d]), "pair" (z: [b, n, k, d]) or "global" (z: [b, d]), as in `Latent`.
        fingerprint: Changes with weights, preprocessing or version.
    """

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def level(self) -> Level: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    def __call__(self, x_0: Tensor, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Encodes a batch.

        Args:
            x_0: Clean data, [b, n, ...] (or [b, ...] without a mask).
            c: The condition, as the denoiser gets it.
            mask: True where an element of x_0 exists.

        Returns:
            z, with a mask that is True where it is known (None: wherever x_0 exists).
        """
        ...


def checked(encoder: Encoder, found: Representation) -> Representation:
    """Returns what an encoder put out, if its shape is what the encoder says.

    Raises:
        InputError: If width or rank do not fit its `dim` and `level`, or the mask does not fit z.
    """
    rank = {"global": 2, "token": 3, "pair": 4}[encoder.level]
    if found.z.ndim != rank or found.z.shape[-1] != encoder.dim:
        raise InputError(
            f"encoder {encoder.name} put out a tensor of shape {tuple(found.z.shape)}; a {encoder.level} "
            f"representation of width {encoder.dim} has {rank} axes, the last of {encoder.dim}: choose another tap, "
            "level or dim"
        )
    if found.mask is not None and found.mask.shape != found.z.shape[:-1]:
        raise InputError(
            f"encoder {encoder.name} put out a mask of shape {tuple(found.mask.shape)} for a z of shape "
            f"{tuple(found.z.shape)}; the mask has all axes of z but the last"
        )
    return found


def fingerprint_module(module: nn.Module, *also: str) -> str:
    """A hash of a module's weights and buffers: names, types, shapes and values, in the order of the names.

    Code is not hashed: say what it does, or its version, in `also`.

    Args:
        module: The module.
        also: What else the values depend on (preprocessing, version, tap).

    Returns:
        64 hexadecimal digits (SHA-256), the same on every device.
    """
    digest = hashlib.sha256(repr([type(module).__qualname__, *also]).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _data_alone(x_0: Tensor, c: Any, mask: Bool[Tensor, "b n"] | None) -> tuple[Any, ...]:
    return (x_0,)


def move_encoder(encoder: Encoder, device: torch.device | str) -> None:
    """Moves the module of an encoder to a device, if it has one."""
    module = getattr(encoder, "module", None)
    if isinstance(module, nn.Module):
        module.to(device)


class ModuleEncoder:
    """Any torch module as an encoder: its output, or what one of its submodules puts out. No gradient, no dropout.

    The module is given over: it is frozen and set to evaluation mode.

    Args:
        name: A short name.
        module: The module.
        dim: Width of z.
        level: "token", "pair" or "global". A global z is the mean over elements if the module puts out [b, n, d].
        tap: Path of the submodule to be read (see `Tap`); left out, the output of the module itself.
        inputs: `inputs(x_0, c, mask)` returns the arguments of the module; left out, it is called with x_0 alone.
        version: Names the preprocessing in `inputs` and the code of the module; part of the fingerprint.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        dim: int,
        level: Level = "token",
        tap: str = "",
        inputs: Inputs = _data_alone,
        version: str = "",
    ) -> None:
        self.name, self.dim, self.level = name, dim, level
        self.module = module.eval().requires_grad_(False)
        self.tap, self.inputs, self.version = tap, inputs, version

    @property
    def fingerprint(self) -> str:
        """The hash of the weights as they are now, of the tap, the level and the version."""
        parts = {"tap": self.tap, "level": self.level, "version": self.version}
        return named({"weights": fingerprint_module(self.module), **parts})

    @torch.no_grad()
    def __call__(self, x_0: Tensor, c: Any = None, mask: Bool[Tensor, "b n"] | None = None) -> Representation:
        """Encodes a batch; z is known where x_0 exists.

        Raises:
            InputError: If the width or rank of what was read does not fit `dim` and `level`.
        """
        with Tap(self.module, [self.tap]) as tap:
            self.module(*self.inputs(x_0, c, mask))
        z = tap[self.tap]
        if self.level == "global" and z.ndim > 2:
            z = pool_tokens(z, mask)
        return checked(self, Representation(z, mask if self.level == "token" else None))

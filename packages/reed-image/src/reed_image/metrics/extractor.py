"""What turns pictures into the features that are compared: any encoder of `reed_image.encoders`, or InceptionV3.

    inception[=PATH]                     torch-fidelity's InceptionV3, as in published figures: FID, KID, IS
    mobilenet_v2[@SIDE][=PATH]           encoders/mobilenet_v2_imagenet.safetensors of REED_DATA, or a file
    resnet20[@SIDE][=PATH]               encoders/resnet20_cifar10.safetensors of REED_DATA, or a file
    layout                               edges and colours, without weights
    MODEL[@SIDE][=PATH | =random]        any model of timm: downloaded, from a safetensors file, or random (a control)

Pictures come as 8-bit RGB, since that is what files hold: rounding is the same whether they were written or not. They
are brought to SIDE pixels (224 by default, 32 for resnet20) in one place, `reed_image.encoders.vision.resized`: bicubic
with antialiasing, in float32, clamped to [0, 1]. A filter without antialiasing when making pictures smaller, or one
that rounds in between, moves Frechet distances by more than models differ (arXiv 2104.11222); InceptionV3 alone keeps
the filter of published figures, TensorFlow 1's bilinear one to 299 pixels, which has none. Features are the last map
(or the tokens of the last block, normalised), averaged over places, or the class token where that is asked.
"""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import UInt8
from reed_core.errors import InputError
from torch import Tensor, nn

from reed_image.encoders import Layout, VisionEncoder, mobilenet_v2, resnet20, timm_encoder
from reed_image.encoders.timm_model import pixels_of_token
from reed_image.latents.spec import data_path
from reed_image.metrics.features import Extractor, Features
from reed_image.metrics.inception import INCEPTION, open_inception

SIDE, SMALL_SIDE = 224, 32
_MOBILENET = ("mobilenet_v2", "encoders/mobilenet_v2_imagenet.safetensors", 32)
_RESNET = ("resnet20", "encoders/resnet20_cifar10.safetensors", 4)


class EncoderExtractor:
    """An encoder of pictures as an extractor.

    Args:
        name: As it stands in the names of figures.
        encoder: One that gives one vector for each picture.
        head: Makes logits of that vector.
        device: Where it runs.

    Raises:
        InputError: If the encoder gives tokens.
    """

    def __init__(
        self, name: str, encoder: VisionEncoder | Layout, head: nn.Module | None = None, device: Any = "cpu"
    ) -> None:
        if encoder.level != "global":
            raise InputError(f"{name} gives tokens; expected an encoder of one vector for each picture")
        self.name, self.encoder, self.head, self.device = name, encoder, head, torch.device(device)
        self.fingerprint, self.classifies = encoder.fingerprint, head is not None
        if isinstance(encoder, VisionEncoder):
            self.preprocessing = f"bicubic, antialiased, to {encoder.size} pixels"
            encoder.to(device)
        else:
            self.preprocessing = "bicubic, antialiased, to 64 pixels"

    @torch.no_grad()
    def __call__(self, pixels: UInt8[Tensor, "b 3 H W"]) -> Features:
        """Features of a batch."""
        pooled = self.encoder(pixels.to(self.device).float() / 255).z
        return Features(pooled, None if self.head is None else self.head(pooled))


def open_extractor(text: str, pool: Literal["mean", "class"] = "mean", device: Any = "cpu") -> Extractor:
    """The extractor of a name.

    Args:
        text: See the top of this module.
        pool: Whether a transformer of timm is read by the mean of its tokens or by its class token.
        device: Where it is to run.

    Raises:
        InputError: If the name is not understood, or the network cannot be had.
    """
    name, side, weights = _parts(text)
    if name not in (INCEPTION, "layout", _MOBILENET[0], _RESNET[0]):
        return _timm(name, side, weights, pool, device)
    if pool == "class":
        raise InputError(f"{name} has no class token; leave --pool at mean")
    if name in (INCEPTION, "layout") and side is not None:
        raise InputError(f"'{text}': {name} sees pictures of its own size; leave @{side} out")
    if name == INCEPTION:
        return open_inception(None if weights is None else Path(weights), device)
    if name == "layout":
        if weights is not None:
            raise InputError(f"'{text}': layout has no weights; leave them out")
        return EncoderExtractor(name, Layout(), None, device)
    _, usual, step = _MOBILENET if name == _MOBILENET[0] else _RESNET
    path = data_path(weights or usual)
    if name == _RESNET[0]:
        encoder = resnet20(path, grid=_grid(text, side or SMALL_SIDE, step), level="global")
        return EncoderExtractor(_shown(name, side), encoder, encoder.module.get_submodule("linear"), device)
    encoder = mobilenet_v2(path, grid=_grid(text, side or SIDE, step), level="global")
    return EncoderExtractor(_shown(name, side), encoder, None, device)


def _timm(name: str, side: int | None, weights: str | None, pool: Literal["mean", "class"], device: Any) -> Extractor:
    grid = _grid(name, side or SIDE, pixels_of_token(name))
    found: Any = {None: "pretrained", "random": "random"}.get(weights) or data_path(str(weights))
    encoder = timm_encoder(name, grid=grid, level="global", pool=pool, weights=found)
    marks = [encoder.name, *(["class"] if pool == "class" else []), *(["random"] if found == "random" else [])]
    return EncoderExtractor(_shown(" ".join(marks), side), encoder, None, device)


def _parts(text: str) -> tuple[str, int | None, str | None]:
    named, equals, weights = text.partition("=")
    found = re.fullmatch(r"(?P<name>.+?)(?:@(?P<side>\d{1,5}))?", named)
    if found is None or (equals and not weights):
        raise InputError(f"no encoder '{text}'; expected NAME, NAME@SIDE or NAME=FILE, as resnet20 or resnet18@160")
    return found["name"], int(found["side"]) if found["side"] else None, weights or None


def _grid(text: str, side: int, step: int) -> int:
    if side < step or side % step:
        raise InputError(f"{text} reads pictures of multiples of {step} pixels, not {side}; give NAME@SIDE with one")
    return side // step


def _shown(name: str, side: int | None) -> str:
    return name if side is None else f"{name}@{side}"

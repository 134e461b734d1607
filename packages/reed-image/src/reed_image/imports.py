"""Reading checkpoints that SiT, REPA and REED published: from their files to an `ImageModel`.

A .pt file is unpickled with `weights_only`, and beside tensors may hold an argparse.Namespace, which says how it was
trained; a .safetensors file holds tensors alone. Averaged weights ("ema") are taken where there are any.

The published SiT samples guide the first three of four channels alone; guidance here is of all channels, as in REPA.
"""

import argparse
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from reed_core.errors import InputError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from reed_image.autoencoder import AutoencoderSpec
from reed_image.convert import Direction, convert, doubled, projected
from reed_image.model import ImageModel, ModelConfig

SD_VAE = AutoencoderSpec(
    name="stabilityai/sd-vae-ft-ema",
    kind="KlCodec",
    channels=4,
    factor=8,
    stochastic=True,
    shift=(0.0,) * 4,
    scale=(0.18215,) * 4,
    weights="",
)
"""The autoencoder of the published checkpoints: its decoder, as they sample; they train with the same encoder."""

PATHS: dict[str, Literal["linear", "trig"]] = {"linear": "linear", "cosine": "trig", "gvp": "trig"}
PREDICTIONS: dict[str, Literal["v", "eps"]] = {"velocity": "v", "v": "v", "noise": "eps"}
PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Imported:
    """A published model.

    Attributes:
        model: It, in evaluation mode, in our convention.
        direction: Which end of time was data in the file.
        weights: Which of the weights of the file it has: "ema", "model", "state_dict", or "all" of a flat file.
        dropped: Keys that were left out: projectors.
    """

    model: ImageModel
    direction: Direction
    weights: str
    dropped: tuple[str, ...]


def import_checkpoint(
    path: Path,
    source: Literal["sit", "repa", "reed"] | None = None,
    heads: int | None = None,
    autoencoder: AutoencoderSpec | None = SD_VAE,
) -> Imported:
    """Reads a published checkpoint.

    Args:
        path: A .pt, .pth or .safetensors file.
        source: Whose code trained it, which tells the direction of time. None finds out: from the settings in the
            file, from projectors (REPA), or from a last layer with outputs that nobody reads (SiT).
        heads: Attention heads; None for those of the published size.
        autoencoder: What made its latents; None for pixels.

    Raises:
        InputError: If the file is missing, damaged, of another network, or holds more than tensors and settings; or
            if its source or heads cannot be told.
    """
    content = _read(Path(path))
    weights, published = _choose(content, path)
    settings = _settings(content)
    predicted = _known(PREDICTIONS, settings.get("prediction", "v"), "prediction", path)
    way = _known(PATHS, settings.get("path_type", "linear"), "path", path)
    direction = _direction(source, settings, published, path)
    try:
        found = convert(published, direction, heads, velocity=predicted == "v")
        config = ModelConfig(network=found.config, path=way, prediction=predicted, autoencoder=autoencoder)
        model = ImageModel(config)
        model.network.load_state_dict(found.state)
    except (InputError, ValidationError, RuntimeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())[:400]}") from error
    return Imported(model.eval(), direction, weights, found.dropped)


def _read(path: Path) -> Any:
    expected = "a .pt or .safetensors file of SiT, REPA or REED"
    if not path.is_file():
        raise InputError(f"no file {path}; expected {expected}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            lazily = zipfile.is_zipfile(path)  # so that the optimiser's state beside the weights is never read
            return torch.load(path, map_location="cpu", weights_only=True, mmap=lazily)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not {expected} ({_brief(error)}); get it again") from error
    except Exception as error:  # a damaged file fails in as many ways as there are places to damage
        raise InputError(f"{path} is not {expected}, or holds more than tensors ({_brief(error)})") from error


def _choose(content: Any, path: Path) -> tuple[str, dict[str, Tensor]]:
    """The averaged weights, else the others, without the prefixes that wrappers leave."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}; expected named tensors")
    name = next((key for key in ("ema", "model", "state_dict") if isinstance(content.get(key), Mapping)), "all")
    chosen = content if name == "all" else content[name]
    tensors = {str(key): value for key, value in chosen.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensors; expected those of a SiT, REPA or REED image network")
    for prefix in PREFIXES * 2:  # one wrapper inside another, in either order
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return name, tensors


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    found = content.get("args")
    return dict(vars(found)) if isinstance(found, argparse.Namespace) else {}


def _direction(source: str | None, settings: dict[str, Any], published: dict[str, Tensor], path: Path) -> Direction:
    if source is not None:
        return "sit" if source == "sit" else "repa"
    if projected(published) or "proj_coeff" in settings:
        return "repa"
    if "train_eps" in settings or doubled(published):
        return "sit"
    raise InputError(
        f"{path} does not tell which end of time is data; say its source: sit (t = 1), repa or reed (t = 0)"
    )


def _known(table: Mapping[str, Any], value: Any, what: str, path: Path) -> Any:
    if str(value).lower() not in table:
        raise InputError(f"{path} was trained with the {what} '{value}'; expected one of {', '.join(table)}")
    return table[str(value).lower()]


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__

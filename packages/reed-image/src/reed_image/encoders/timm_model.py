"""Any timm model as an encoder: a vision transformer's patch tokens, or a convolutional network's map at any stage.

What is easy to get wrong, and is taken care of here: tokens of a transformer are normalised by its last norm (timm's
default leaves that out); class and register tokens are not patches; DINOv2's default of 518 pixels would not meet the
grid; a model's own mean and deviation are used, its own crop is not.
"""

import os
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from reed_core.errors import InputError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from reed_image.encoders.vision import Level, VisionEncoder, map_to_tokens

Weights = Literal["pretrained", "random"] | Path
Pool = Literal["mean", "class"]


def timm_encoder(
    model: str,
    *,
    grid: int,
    at: int = -1,
    level: Level = "token",
    pool: Pool = "mean",
    weights: Weights = "pretrained",
    seed: int = 0,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    name: str | None = None,
    **settings: Any,
) -> VisionEncoder:
    """Makes an encoder of a timm model.

    Args:
        model: Its name in timm, such as "vit_base_patch14_dinov2.lvd142m", or "hf-hub:OWNER/NAME".
        grid: Tokens along a side: that of the network to be guided.
        at: Which block of a transformer or stage of a convolutional network is read; negative ones from the end.
        level: "token", or "global": one vector.
        pool: What the one vector is: the mean of the tokens, or the class token.
        weights: "pretrained" (downloaded once), "random" (a control, by `seed`), or a safetensors file of the model.
        seed: Seeds random weights.
        mean: Of each colour; left out, the model's own.
        std: Likewise.
        name: A short name; left out, the model's without what follows the dot.
        settings: Further arguments of `timm.create_model`, such as `pad_type="same"`.

    Raises:
        InputError: If there is no such model, it cannot be had, or it does not meet the grid.
    """
    outline, accepts_size = _outline(model, settings)
    transformer = hasattr(outline, "num_prefix_tokens") and hasattr(outline, "patch_embed")
    step = _step(outline, model, at, transformer)
    if pool == "class" and level == "global" and not (transformer and int(outline.num_prefix_tokens)):
        raise InputError(f"{model} has no class token; choose pool 'mean'")
    size: dict[str, Any] = {"img_size": step * grid} if accepts_size else {}
    network = _made(model, weights, seed, {**settings, **size})
    config = timm.data.resolve_model_data_config(network)

    def read(x: Tensor) -> Tensor:
        return _tokens(network, x, at, transformer, level, pool)

    encoder = VisionEncoder(
        name or model.removeprefix("hf-hub:").split("/")[-1].split(".")[0],
        network,
        read,
        step * grid,
        level,
        mean or config["mean"],
        std or config["std"],
        version=f"timm,{model},at={at},{pool if level == 'global' else 'tokens'}",
    )
    if level == "token" and encoder.tokens != grid**2:
        raise InputError(
            f"{model} gives {encoder.tokens} tokens for pictures of {step * grid} pixels, not {grid} x {grid}; "
            "choose another grid or stage"
        )
    return encoder


def mobilenet_v2(path: Path, *, grid: int, at: int = -1, level: Level = "token") -> VisionEncoder:
    """MobileNetV2 with the weights of TensorFlow's release, as a timm state dict: 1001 classes, pictures in [-1, 1].

    Args:
        path: The safetensors file.
        grid: Tokens along a side.
        at: Which stage: 0 to 4, of stride 2, 4, 8, 16, 32.
        level: "token" or "global".
    """
    half = (0.5, 0.5, 0.5)
    settings: dict[str, Any] = {"pad_type": "same", "num_classes": 1001}
    return timm_encoder(
        "mobilenetv2_100", grid=grid, at=at, level=level, weights=Path(path), mean=half, std=half, **settings
    )


def pixels_of_token(model: str, at: int = -1, **settings: Any) -> int:
    """Pixels of the input for each token along a side: the grid of `timm_encoder` times this is the input's side.

    Args:
        model: Its name in timm.
        at: Which block or stage is read.
        settings: Further arguments of `timm.create_model`.

    Raises:
        InputError: If there is no such model or stage.
    """
    outline, _ = _outline(model, settings)
    return _step(outline, model, at, hasattr(outline, "num_prefix_tokens") and hasattr(outline, "patch_embed"))


def _tokens(network: Any, x: Tensor, at: int, transformer: bool, level: Level, pool: Pool) -> Tensor:
    if not transformer:
        (maps,) = network.forward_intermediates(x, indices=[at], output_fmt="NCHW", intermediates_only=True)
        tokens = map_to_tokens(maps)
        return tokens if level == "token" else tokens.mean(1)
    found = network.forward_intermediates(
        x,
        indices=[at],
        norm=True,
        output_fmt="NLC",
        intermediates_only=True,
        stop_early=True,
        return_prefix_tokens=pool == "class" and level == "global",
    )[0]
    if level == "token":
        return found
    return found[1][:, 0] if isinstance(found, tuple) else found.mean(1)


def _outline(model: str, settings: dict[str, Any]) -> tuple[Any, bool]:
    """The model without memory for its weights, and whether it can be made for another size of the input."""
    with torch.device("meta"):
        try:
            return timm.create_model(model, img_size=_trial_size(model, settings), **settings), True
        except TypeError as error:
            if "img_size" not in str(error):
                raise InputError(f"{model}: {' '.join(str(error).split())[:160]}; correct the settings") from error
        except Exception as error:
            raise _no_model(model, error) from error
        return timm.create_model(model, **settings), False


def _trial_size(model: str, settings: dict[str, Any]) -> int:
    """The model's own size of the input: an outline of that size can always be made."""
    with torch.device("meta"):
        network: Any = timm.create_model(model, **settings)
    return int(timm.data.resolve_model_data_config(network)["input_size"][-1])


def _step(outline: Any, model: str, at: int, transformer: bool) -> int:
    """Pixels of the input for each token along a side."""
    try:
        if transformer and hasattr(outline.patch_embed, "patch_size"):
            patch = outline.patch_embed.patch_size
            return int(patch[0] if isinstance(patch, (tuple, list)) else patch)
        return int(outline.feature_info[at]["reduction"])
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise InputError(f"{model} has no stage {at} that timm describes; choose another") from error


def _made(model: str, weights: Weights, seed: int, settings: dict[str, Any]) -> nn.Module:
    if weights == "pretrained":
        classes: dict[str, Any] = {} if "num_classes" in settings else {"num_classes": 0}
        try:
            return timm.create_model(model, pretrained=True, **settings, **classes)
        except Exception as error:  # a download fails in many ways; their texts name hosts
            raise InputError(
                f"the weights of {model} cannot be downloaded ({type(error).__name__}); give a safetensors file of them"
            ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = timm.create_model(model, **settings)
    if weights != "random":
        load_weights(network, Path(weights), model)
    return network


def load_weights(network: nn.Module, path: Path, what: str) -> None:
    """Fills a network from a safetensors file, in its own types; only counters of batches may be missing.

    Raises:
        InputError: If the file cannot be read or is of another network.
    """
    try:
        state = load_file(os.fspath(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as safetensors ({type(error).__name__}); copy it again") from error
    try:
        found = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit {what} ({' '.join(str(error).split())[:160]})") from error
    odd = [key for key in found.missing_keys if not key.endswith("num_batches_tracked")] + list(found.unexpected_keys)
    if odd:
        raise InputError(f"{path} does not fit {what}: {odd[0]} is on one side only; give the file of this model")


def _no_model(model: str, error: Exception) -> InputError:
    return InputError(f"no timm model '{model}' ({type(error).__name__}); `timm.list_models()` lists their names")

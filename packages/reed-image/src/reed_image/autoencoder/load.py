"""Finding an autoencoder by name: a folder of diffusers, a name on the Hugging Face hub, TAEF2's files, or the pixels.

    pixels                                    no autoencoder: pixels in [-1, 1]
    stabilityai/sd-vae-ft-mse                 OWNER/NAME on the hub
    black-forest-labs/FLUX.1-dev/vae          OWNER/NAME/SUBFOLDER on the hub
    path/to/folder                            config.json and safetensors of diffusers, the files of TAEF2, or an
                                              encoder's tokens with their decoder (`reed_image.autoencoder.rae`)

Weights are read from safetensors alone.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
from reed_core.errors import InputError

from reed_image.autoencoder.codec import Codec, DcCodec, KlCodec, PixelCodec, TinyCodec
from reed_image.autoencoder.model import Autoencoder, AutoencoderSpec
from reed_image.autoencoder.rae import is_rae, load_rae
from reed_image.autoencoder.taef2 import ENCODER_FILE, load_taef2

PIXELS = "pixels"
_KINDS: dict[str, tuple[Any, Callable[[Any], Codec]]] = {
    "AutoencoderKL": (diffusers.AutoencoderKL, KlCodec),
    "AutoencoderDC": (diffusers.AutoencoderDC, DcCodec),
    "AutoencoderTiny": (diffusers.AutoencoderTiny, TinyCodec),
}


def load_autoencoder(name: str | Path) -> Autoencoder:
    """Loads an autoencoder, on the CPU, in float32.

    Args:
        name: See the top of this module.

    Raises:
        InputError: If it cannot be had, or is of another kind.
    """
    if str(name) == PIXELS:
        return Autoencoder(PIXELS, PixelCodec(), (0.0,) * 3, (1.0,) * 3)
    folder = Path(name)
    if (folder / ENCODER_FILE).is_file():
        return load_taef2(folder)
    if is_rae(folder):
        return load_rae(folder)
    if folder.is_dir():
        return _from_diffusers(str(folder), None, f"{folder} holds no autoencoder of diffusers")
    owner, _, rest = str(name).partition("/")
    model, _, subfolder = rest.partition("/")
    if not owner or not model or owner.startswith((".", "~")):
        raise InputError(f"no autoencoder '{name}'; give '{PIXELS}', a folder, or a name on the hub (OWNER/NAME)")
    return _from_diffusers(
        f"{owner}/{model}",
        subfolder or None,
        f"autoencoder '{name}' is neither a folder here nor can it be downloaded",
    )


def load_recorded(spec: AutoencoderSpec) -> Autoencoder:
    """The autoencoder that some latents were made with, with their normalisation.

    Args:
        spec: What was recorded.

    Raises:
        InputError: If it cannot be had, or its weights are not those.
    """
    found = load_autoencoder(spec.name)
    held = found.spec
    if (held.channels, held.factor) != (spec.channels, spec.factor) or spec.weights not in ("", held.weights):
        raise InputError(
            f"{spec.name} is not the autoencoder the latents were made with (other weights); find it, or prepare again"
        )
    return Autoencoder(found.name, found.codec, spec.shift, spec.scale)


def _from_diffusers(place: str, subfolder: str | None, problem: str) -> Autoencoder:
    where: dict[str, Any] = {} if subfolder is None else {"subfolder": subfolder}
    with _quiet():
        try:
            config = diffusers.AutoencoderKL.load_config(place, **where)
            said = config.get("_class_name", "AutoencoderKL")
            if said not in _KINDS:
                raise InputError(f"{place} is a {said}; expected one of {', '.join(_KINDS)}")
            kind, adapter = _KINDS[said]
            module, loading = kind.from_pretrained(
                place, **where, use_safetensors=True, low_cpu_mem_usage=False, output_loading_info=True
            )
        except InputError:
            raise
        except Exception as error:  # a download fails in many ways, and so do damaged files; their texts name hosts
            raise InputError(f"{problem} ({type(error).__name__}); give the folder of a copy") from error
    lacking = [*loading["missing_keys"], *loading["unexpected_keys"], *map(str, loading["mismatched_keys"])]
    if lacking:
        raise InputError(f"the weights of {place} are not those of its config.json: {lacking[0]}; copy it again")
    name = place if subfolder is None else f"{place}/{subfolder}"
    codec = adapter(module)
    return Autoencoder(name, codec, *constants(module.config, codec.channels))


def constants(config: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Shift and scale per channel, from a configuration of diffusers.

    Args:
        config: Its `scaling_factor`, `shift_factor`, and `latents_mean` and `latents_std` where there are any.
        channels: Channels of the latents.
    """
    factor = float(config.get("scaling_factor") or 1.0)
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None:
        return tuple(map(float, mean)), tuple(factor / float(value) for value in std)
    return (float(config.get("shift_factor") or 0.0),) * channels, (factor,) * channels


@contextmanager
def _quiet() -> Iterator[None]:
    """No advice of the libraries on standard error: what matters is raised."""
    names = [logging.getLogger(name) for name in ("diffusers", "huggingface_hub")]
    levels = [logger.level for logger in names]
    for logger in names:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(names, levels, strict=True):
            logger.setLevel(level)

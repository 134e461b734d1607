"""Weights on disk: `model.safetensors` beside `config.json`. Nothing is ever unpickled.

`config.json` holds the model's configuration and the SHA-256 of its weights. Two files cannot be exchanged in one step,
so while the weights change `config.json` describes both the new ones and the `previous`: whenever a writer is stopped,
the weights that lie there have their configuration beside them.
"""

import json
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.files import sha256, write_text, written_aside

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@runtime_checkable
class Configured(Protocol):
    """A module built from one typed configuration, kept as `config`."""

    Config: type[BaseModel]
    config: Any

    def __init__(self, config: Any) -> None: ...


Model = TypeVar("Model", bound=nn.Module)


def save_pretrained(model: nn.Module, folder: Path, half: bool = False) -> None:
    """Writes weights and configuration.

    Args:
        model: A module with a pydantic `config`.
        folder: Where to; created.
        half: Store floating-point weights as bfloat16.

    Raises:
        InputError: If the folder cannot be written; files already there stay whole.
    """
    folder = Path(folder)
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        dtype = torch.bfloat16 if half and value.is_floating_point() else value.dtype
        state[name] = value.detach().to("cpu", dtype, copy=True).contiguous()  # safetensors wants no shared memory
    config: Any = model.config
    with written_aside(folder / WEIGHTS) as aside:
        save_file(state, aside)
        content = {"model": config.model_dump(mode="json"), "sha256": sha256(aside)}
        _write_config(folder, {**content, "previous": _replaced(folder)})
    _write_config(folder, content)


def from_pretrained(kind: type[Model], folder: Path) -> Model:
    """Reads what `save_pretrained` wrote.

    Args:
        kind: The module class; its `Config` reads the configuration.
        folder: The folder.

    Returns:
        The model in evaluation mode, in float32 on the CPU.

    Raises:
        InputError: If a file is missing, damaged, or belongs to another kind of model.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"no {name} in {folder}; expected a folder with {CONFIG} and {WEIGHTS}")
    try:
        content = _described(folder)
        if content is None:
            raise InputError(f"{folder / WEIGHTS} is damaged: its SHA-256 is not the one in {CONFIG}; copy it again")
        config = kind.Config.model_validate(content["model"])  # type: ignore[attr-defined]
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / CONFIG} does not describe a {kind.__name__} ({_brief(error)}); give weights saved by REED"
        ) from error
    try:
        state = load_file(folder / WEIGHTS)
        model = kind(config)
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InputError(
            f"{folder / WEIGHTS} does not fit a {kind.__name__} ({_brief(error)}); give weights saved by REED"
        ) from error
    return model.eval()


def _write_config(folder: Path, content: dict[str, Any]) -> None:
    write_text(folder / CONFIG, json.dumps(content, indent=2) + "\n")


def _described(folder: Path) -> dict[str, Any] | None:
    """What `config.json` says of the weights beside it; None if they are not there, or not the ones it describes."""
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return None
    content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    found = sha256(folder / WEIGHTS)
    for entry in (content, content.get("previous")):
        if entry is not None and entry["sha256"] == found:
            return {"model": entry["model"], "sha256": found}
    return None


def _replaced(folder: Path) -> dict[str, Any] | None:
    """As `_described`, for a folder that is about to be written: files that nothing describes are no loss."""
    try:
        return _described(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _brief(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'model'}: {item['msg']}" for item in error.errors())
    return " ".join(str(error).split())[:300] or type(error).__name__

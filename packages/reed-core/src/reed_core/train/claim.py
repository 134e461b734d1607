"""Whose run a folder holds: the resolved recipe beside the checkpoints, which a resumed run must share."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from reed_core.errors import InputError
from reed_core.files import write_text
from reed_core.train.config import TrainConfig

Recipe = TypeVar("Recipe", bound=BaseModel)


def claim_folder(folder: Path, recipe: BaseModel) -> None:
    """Writes the recipe as `config.json`, or checks it against the one already there.

    A resumed run may be longer, report more often, or be computed elsewhere (`TrainConfig.shared`); nothing else may
    differ.

    Args:
        folder: The run.
        recipe: What makes the run; its field `train` is a `TrainConfig`.

    Raises:
        InputError: If the folder holds a run of another recipe, or cannot be written.
    """
    path = folder / "config.json"
    if path.exists():
        held = type(recipe).model_validate_json(path.read_text(encoding="utf-8"))
        if _identity(held) != _identity(recipe):
            raise InputError(f"{folder} holds a run of another recipe; choose another --out, or remove the folder")
    write_text(path, json.dumps(recipe.model_dump(mode="json"), indent=2) + "\n")


def _identity(recipe: Recipe) -> Recipe:
    """The recipe without the settings that may change between resumes."""
    train: TrainConfig = recipe.__dict__["train"]
    return recipe.model_copy(update={"train": train.shared()})

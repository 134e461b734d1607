"""Whose run a folder holds: the recipe that a resumed run must share, and the one process that may train there."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a folder while a process trains there: two at once would write over each other's log and checkpoints.

    The lock is the operating system's, so it ends with the process, however that ends. Where there are no locks
    (Windows, some network file systems) nothing is held.

    Args:
        folder: The run.

    Raises:
        InputError: If another process holds it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        import fcntl

        place = os.open(folder, os.O_RDONLY)
    except ImportError:
        yield
        return
    except OSError as error:
        raise InputError(f"{folder} cannot hold a run ({error.strerror}); choose another --out") from error
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process trains in {folder}; wait for it, stop it, or choose another --out"
            ) from error
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(place)


def _identity(recipe: Recipe) -> Recipe:
    """The recipe without the settings that may change between resumes."""
    train: TrainConfig = recipe.__dict__["train"]
    return recipe.model_copy(update={"train": train.shared()})

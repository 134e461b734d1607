"""Checkpoints of a run: written aside and renamed, the last two kept, read with `weights_only=True`.

torch does not look at the checksums in its archives, so they are looked at here: a flipped bit is not a weight.
"""

import zipfile
from pathlib import Path
from typing import Any

import torch

from reed_core.errors import InputError
from reed_core.files import written_aside

KEEP = 2


def save_checkpoint(folder: Path, samples: int, state: dict[str, Any]) -> Path:
    """Writes a checkpoint and removes those older than the last two.

    Args:
        folder: The run's `checkpoints` folder.
        samples: Samples seen; names the file.
        state: Tensors, numbers, strings, and dicts and lists of them.

    Raises:
        InputError: If it cannot be written; earlier checkpoints stay as they are.
    """
    path = folder / f"{samples:012d}.pt"
    with written_aside(path) as aside:
        torch.save(state, aside)
    for old in _found(folder)[:-KEEP]:
        old.unlink(missing_ok=True)
    return path


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None if there is none.

    Raises:
        InputError: If there are checkpoints and none can be read.
    """
    found = _found(folder)
    problem: Exception | None = None
    for path in reversed(found):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise InputError(f"{path} is damaged at {damaged}")
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file fails in as many ways as there are places to damage
            problem = error
    if problem is not None:
        reason = " ".join(str(problem).split())[:200]
        raise InputError(f"no checkpoint in {folder} can be read ({reason}); remove the folder to start again")
    return None


def _found(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9]*.pt"))

"""Reading files that torch saved elsewhere: tensors, plain values and the named classes alone, never code."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from reed_core.errors import InputError


def load_restricted(path: Path, allowed: Sequence[Any], what: str) -> Any:
    """The content of a file of `torch.save`, unpickled with `weights_only`.

    Args:
        path: The file.
        allowed: Classes and functions that may appear in it besides, as `torch.serialization.safe_globals` takes them.
        what: What the file should be, for the message.

    Raises:
        InputError: If it is missing, damaged, or holds anything else.
    """
    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no file {path}; expected {what}") from error
    except Exception as error:  # a damaged file fails in as many ways as there are places to damage
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(f"{path} is not {what} ({reason}); get it again") from error

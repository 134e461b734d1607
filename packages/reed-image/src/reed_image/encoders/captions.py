"""Captions by the name of the picture, from a file of lines.

.jsonl    {"name": "ant/1.png", "caption": "an ant on a leaf"}
.tsv      ant/1.png<tab>an ant on a leaf
"""

import json
from collections.abc import Mapping
from pathlib import Path

from reed_core.errors import InputError


def read_captions(path: Path) -> Mapping[str, str]:
    """Reads captions.

    Args:
        path: A .jsonl or .tsv file, one picture a line; of a name that stands twice, the last counts.

    Raises:
        InputError: If the file cannot be read, or a line is something else.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read captions from {path} ({type(error).__name__}); give a .jsonl or .tsv") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            if path.suffix == ".jsonl":
                entry = json.loads(line)
                name, caption = entry["name"], entry["caption"]
            else:
                name, caption = line.split("\t", 1)
            if not isinstance(name, str) or not isinstance(caption, str):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            form = '{"name": ..., "caption": ...}' if path.suffix == ".jsonl" else "NAME<tab>CAPTION"
            raise InputError(f"line {number} of {path} is no caption; expected {form}") from error
        found[name] = caption
    if not found:
        raise InputError(f"{path} holds no caption")
    return found

"""The log of a run: one JSON object a line, cut back to the checkpoint on resume, so no line ever stands twice."""

import json
from pathlib import Path
from typing import Any

from reed_core.errors import InputError
from reed_core.files import write_text


class RunLog:
    """Appends to `log.jsonl`.

    Args:
        path: The file.
        samples: Samples seen by the state the run starts from; later lines of an earlier attempt are dropped.
    """

    def __init__(self, path: Path, samples: int) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["samples"] <= samples] if samples and path.exists() else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._last = kept[-1] if kept else None

    def write(self, line: dict[str, Any]) -> None:
        """Appends one line, which holds `samples`; the line that already ends the log is not written again."""
        if line == self._last:
            return
        self._last = line
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}; free some space and resume") from error


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line cut short by a crash is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines

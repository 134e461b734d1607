"""The log of a run: one JSON object a line, cut back to the checkpoint on resume, so no line ever stands twice.

Beside the file, which is always written, a log tells the same lines to sinks: TensorBoard and Weights & Biases, each an
optional extra. There a figure's step is the number of samples seen.
"""

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from reed_core.errors import InputError
from reed_core.files import write_text

_COUNTS = ("samples", "step")


@runtime_checkable
class Sink(Protocol):
    """Another place for the lines of a log."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Takes one line, which holds `samples`."""
        ...

    def close(self) -> None:
        """Sends what is left."""
        ...


class RunLog:
    """Appends to `log.jsonl`, and tells the same to sinks.

    Args:
        path: The file.
        samples: Samples seen by the state the run starts from; later lines of an earlier attempt are dropped.
        sinks: From `sinks`; closed with the log.
    """

    def __init__(self, path: Path, samples: int, sinks: Sequence[Sink] = ()) -> None:
        self.path, self.sinks = path, tuple(sinks)
        kept = [line for line in read_log(path) if line["samples"] <= samples] if samples and path.exists() else []
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._last = kept[-1] if kept else None

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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
        for sink in self.sinks:
            sink.write(line)

    def close(self) -> None:
        """Closes the sinks."""
        for sink in self.sinks:
            sink.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line cut short by a crash is left out."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def sinks(names: Sequence[str], folder: Path, samples: int = 0) -> list[Sink]:
    """Opens the sinks of a run.

    Args:
        names: "tensorboard" (event files in `folder/tensorboard`), "wandb" (a run named as the folder, in the project
            that WANDB_PROJECT names, or "reed"; its settings are those of `folder/config.json`, if there is one).
        folder: The run folder.
        samples: Samples seen by the state the run starts from.

    Raises:
        InputError: If a name is unknown, its library is not installed, or it cannot start.
    """
    opened: list[Sink] = []
    for name in names:
        if name not in ("tensorboard", "wandb"):
            raise InputError(f"logs: '{name}' is unknown; expected tensorboard or wandb")
        opened.append(_TensorBoard(folder, samples) if name == "tensorboard" else _Wandb(folder))
    return opened


class _TensorBoard:
    """Event files; figures of an earlier attempt beyond the checkpoint are hidden."""

    def __init__(self, folder: Path, samples: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("tensorboard is not installed; pip install 'reed-core[tensorboard]'") from error
        self._writer: Any = SummaryWriter(str(folder / "tensorboard"), purge_step=samples + 1 if samples else None)

    def write(self, line: Mapping[str, Any]) -> None:
        for name, value in _figures(line).items():
            self._writer.add_scalar(name, value, global_step=line["samples"])

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """A run of Weights & Biases, continued on resume: it keeps its first value where a resumed run repeats a step."""

    def __init__(self, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise InputError("wandb is not installed; pip install 'reed-core[wandb]'") from error
        named, config = folder / "wandb.json", folder / "config.json"
        name = folder.resolve().name
        held = json.loads(named.read_text(encoding="utf-8"))["id"] if named.exists() else secrets.token_hex(4)
        write_text(named, json.dumps({"id": held}) + "\n")
        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", "reed"),
                name=name,
                id=held,
                resume="allow",
                dir=str(folder),
                config=json.loads(config.read_text(encoding="utf-8")) if config.exists() else None,
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"wandb cannot start ({reason}); run `wandb login`, or set WANDB_MODE=offline") from error

    def write(self, line: Mapping[str, Any]) -> None:
        self._run.log(_figures(line), step=line["samples"])

    def close(self) -> None:
        self._run.finish()


def _figures(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in line.items()
        if isinstance(value, int | float) and name not in ("samples", "step")
    }

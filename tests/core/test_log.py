"""The log of a run: cut back on resume, told to sinks, and what happens when a sink is not there."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from reed_core.errors import InputError
from reed_core.train.log import RunLog, read_log, sinks


class Kept:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.closed = False

    def write(self, line: Any) -> None:
        self.lines.append(dict(line))

    def close(self) -> None:
        self.closed = True


def write(path: Path, samples: int, numbers: range, sink: Kept) -> None:
    with RunLog(path, samples, [sink]) as log:
        for number in numbers:
            log.write({"samples": number, "step": number, "total": 1.0 / (1 + number)})


def test_a_resumed_log_has_every_line_once(tmp_path: Path) -> None:
    path, sink = tmp_path / "log.jsonl", Kept()
    write(path, 0, range(1, 8), sink)
    with path.open("a") as stream:
        stream.write('{"samples": 8, "st')
    write(path, 5, range(6, 10), sink)
    assert [line["samples"] for line in read_log(path)] == list(range(1, 10))
    assert [line["samples"] for line in sink.lines] == [*range(1, 8), *range(6, 10)]
    assert sink.closed


def test_the_last_line_is_not_repeated(tmp_path: Path) -> None:
    path, sink = tmp_path / "log.jsonl", Kept()
    for samples in (0, 3):
        with RunLog(path, samples, [sink]) as log:
            log.write({"samples": 3, "recovery": 0.5})
    assert len(read_log(path)) == len(sink.lines) == 1


def test_tensorboard_gets_the_figures_at_their_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, kept in ((1, 0), (4, 3)):  # the second attempt goes back to a checkpoint at 3
        with RunLog(tmp_path / "log.jsonl", kept, sinks(["tensorboard"], tmp_path, kept)) as log:
            for number in range(first, first + 4):
                log.write({"samples": number, "step": 10 * number, "total": number + kept / 10, "note": "words"})
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert found.Tags()["scalars"] == ["total"]
    assert [(event.step, round(event.value, 3)) for event in found.Scalars("total")] == [
        (1, 1.0), (2, 2.0), (3, 3.0), (4, 4.3), (5, 5.3), (6, 6.3), (7, 7.3),
    ]  # fmt: skip


class Wandb:
    """What is used of the library: `init` answers with itself."""

    Error = RuntimeError

    def __init__(self, refuses: bool = False) -> None:
        self.refuses, self.started, self.lines, self.finished = refuses, list[dict[str, Any]](), list[Any](), 0

    def init(self, **settings: Any) -> "Wandb":
        if self.refuses:
            raise RuntimeError("no key\nanywhere")
        self.started.append(settings)
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self.lines.append((step, figures))

    def finish(self) -> None:
        self.finished += 1


def test_wandb_continues_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_PROJECT", "ours")
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3}))
    for samples in (0, 2):
        with RunLog(tmp_path / "log.jsonl", samples, sinks(["wandb"], tmp_path, samples)) as log:
            log.write({"samples": samples + 2, "step": 1, "total": 0.5})
    first, second = wandb.started
    assert first["id"] == second["id"]
    assert (first["project"], first["name"], first["config"]) == ("ours", tmp_path.name, {"seed": 3})
    assert wandb.lines == [(2, {"total": 0.5}), (4, {"total": 0.5})]
    assert wandb.finished == 2


def test_a_sink_that_cannot_start_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", Wandb(refuses=True))
    with pytest.raises(InputError, match=r"no key anywhere.*wandb login"):
        sinks(["wandb"], tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"pip install 'reed-core\[wandb\]'"):
        sinks(["wandb"], tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'reed-core\[tensorboard\]'"):
        sinks(["tensorboard"], tmp_path)
    with pytest.raises(InputError, match="'mlflow' is unknown"):
        sinks(["mlflow"], tmp_path)

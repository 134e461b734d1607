"""`plot-run`: what is read from logs, what the table says, and a picture in which every figure has its panel."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from matplotlib.figure import Figure
from reed_core import cli_plot_run
from reed_core.errors import InputError
from reed_core.train import plot
from typer.testing import CliRunner


def logged(folder: Path, lines: int = 30, start: float = 3.0) -> Path:
    folder.mkdir(parents=True)
    found: list[dict[str, Any]] = []
    for number in range(1, lines + 1):
        line = {"samples": 100 * number, "step": 10 * number, "epoch": 0, "total": start / number}
        found.append({**line, "denoising": 1 / number, "learning_rate": 1e-3, "samples_per_second": 50.0, "mfu": 0.4})
        if number <= lines // 2:  # the alignment stops half-way
            found[-1]["teacher"] = -0.5
        if number % 10 == 0:
            found.append({"samples": 100 * number, "step": 10 * number, "recovery": number / 100})
    found[3]["total"] = float("nan")
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    return folder


def panels(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The visible panels of the picture by title."""
    drawn: list[Figure] = []
    monkeypatch.setattr(plot, "save_png", lambda figure, path: drawn.append(figure))
    plot.plot_runs("nowhere.png", plot.read_runs(runs))
    return {axes.get_title(loc="left"): axes for axes in drawn[0].get_axes() if axes.get_visible()}


def test_every_figure_has_a_panel_and_every_run_a_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [logged(tmp_path / "a"), logged(tmp_path / "b", lines=40, start=6.0)]
    found = panels(runs, monkeypatch)
    assert list(found) == [
        "total", "denoising", "teacher", "recovery", "learning rate", "samples per second", "mfu",
    ]  # fmt: skip
    for axes in found.values():
        assert len({line.get_color() for line in axes.get_lines()}) == 2
        assert axes.get_xlim() == pytest.approx((0, 1.02 * 4000))


@pytest.mark.parametrize(("against", "last"), [("samples", 3000), ("steps", 300), ("hours", 3000 / 50 / 3600)])
def test_the_axis_counts_what_is_asked(tmp_path: Path, against: plot.Against, last: float) -> None:
    (run,) = plot.read_runs([logged(tmp_path / "a")])
    for name in ("total", "recovery"):
        assert plot.curve(run, name, against).x[-1] == pytest.approx(last)


def test_numbers_that_are_none_leave_a_gap(tmp_path: Path) -> None:
    (run,) = plot.read_runs([logged(tmp_path / "a")])
    found = plot.curve(run, "total")
    assert len(found.y) == 29
    assert 400 not in found.x
    assert len(plot.curve(run, "absent").y) == 0


def test_a_spike_of_a_long_log_does_not_set_the_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = logged(tmp_path / "a", lines=400)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    lines[250]["denoising"] = 1e6
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert panels([run], monkeypatch)["denoising"].get_ylim()[1] < 10


def test_a_log_of_one_line_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = logged(tmp_path / "a", lines=12)
    log = run / "log.jsonl"
    log.write_text(log.read_text().splitlines()[0])
    assert set(panels([log], monkeypatch)) >= {"total", "learning rate"}


@pytest.mark.parametrize(("length", "width"), [(1, 5), (4, 7), (40, 7), (10, 1)])
def test_the_running_mean_is_a_mean(length: int, width: int) -> None:
    y = np.random.default_rng(0).normal(size=length)
    wanted = []
    for place in range(length):
        reach = min(place, width // 2)
        wanted.append(y[place - reach : place + reach + 1].mean())
    np.testing.assert_allclose(plot.smoothed(y, width), wanted, atol=1e-12)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    same = [logged(tmp_path / "x" / "run"), logged(tmp_path / "y" / "run")]
    assert [run.label for run in plot.read_runs(same)] == [str(path) for path in same]
    assert [run.label for run in plot.read_runs(same[:1])] == ["run"]


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (500, "500"), (1500, "1.5k"), (2e6, "2M"), (1.2e9, "1.2G")])
def test_counts_are_short(count: float, text: str) -> None:
    assert plot.short(count) == text


def program() -> typer.Typer:
    app = typer.Typer()
    cli_plot_run.register(app)
    app.command("other")(lambda: None)
    return app


def test_the_command_writes_beside_the_log_or_prints_a_table(tmp_path: Path) -> None:
    run = logged(tmp_path / "a")
    assert CliRunner().invoke(program(), ["plot-run", str(run)]).exit_code == 0
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    printed = CliRunner().invoke(program(), ["plot-run", str(run), "--table"]).stdout.splitlines()
    assert printed[0] == "| steps | samples | hours | recovery |"
    assert printed[2:] == [
        "| 100 | 1,000 | 0.01 | 0.1 |",
        "| 200 | 2,000 | 0.01 | 0.2 |",
        "| 300 | 3,000 | 0.02 | 0.3 |",
    ]


def test_what_is_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"holds no log\.jsonl"):
        plot.read_runs([tmp_path])
    (tmp_path / "log.jsonl").write_text("")
    with pytest.raises(InputError, match="is empty"):
        plot.read_runs([tmp_path])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'reed-core\[plot\]'"):
        plot.plot_runs(tmp_path / "out.png", plot.read_runs([logged(tmp_path / "a")]))


def test_registering_it_imports_nothing_heavy() -> None:
    code = "import sys; from reed_core import cli_plot_run; print({'torch', 'matplotlib', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"

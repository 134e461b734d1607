"""The curves of runs, from their logs: a picture with one panel per figure, and a table of the evaluations.

A training line of a log holds `learning_rate`: its other figures are the loss, its parts, and how the run went. All
other lines are evaluations of the averaged weights. Hours are those of training, without evaluations and checkpoints,
where the log was measured so (`reed_core.train.meter`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from reed_core.errors import InputError
from reed_core.picture import COLOURS, GREY, finish, new_figure, save_png
from reed_core.train.log import read_log

Against = Literal["samples", "steps", "hours"]

_COUNTS = ("samples", "step", "epoch", "hours")
_LOSSES = ("total", "denoising")
_RUNNING = ("learning_rate", "samples_per_second", "data_wait_share", "mfu", "mfu_of_measured_peak")
_SHARES = ("data_wait_share", "mfu", "mfu_of_measured_peak")
_AXES = {"samples": "samples seen", "steps": "steps", "hours": "hours of training"}
_COLUMNS, _MANY = 3, 200
_WIDTH, _HEIGHT, _HEADING, _LEGEND = 3.4, 2.1, 0.3, 0.35  # inches
_STYLES = ("-", "--", ":")


@dataclass(frozen=True)
class LoggedRun:
    """What the log of a run says.

    Attributes:
        label: Its name in pictures and tables.
        training: The lines of training, `hours` added.
        evaluations: The lines of evaluations, `hours` added.
    """

    label: str
    training: tuple[dict[str, float], ...]
    evaluations: tuple[dict[str, float], ...]


class Curve(NamedTuple):
    """Finite values of one figure of a run, and where they were measured."""

    x: Float64[np.ndarray, " n"]
    y: Float64[np.ndarray, " n"]


def read_runs(paths: Sequence[Path]) -> list[LoggedRun]:
    """Reads logs.

    Args:
        paths: Run folders, or their `log.jsonl`. Runs of one name are told apart by the folders above.

    Raises:
        InputError: If there is no log, or it is empty.
    """
    folders = [path.parent if path.is_file() else path for path in paths]
    labels = [folder.resolve().name for folder in folders]
    if len(set(labels)) < len(labels):
        labels = [str(folder) for folder in folders]
    return [
        _read(path if path.is_file() else path / "log.jsonl", label) for path, label in zip(paths, labels, strict=True)
    ]


def plot_runs(path: Path | str, runs: Sequence[LoggedRun], against: Against = "samples") -> None:
    """Draws losses, their parts, evaluations, and how the runs went; a noisy curve has its running mean in bold.

    Args:
        path: The PNG file.
        runs: A colour each.
        against: What the horizontal axis counts.

    Raises:
        InputError: If matplotlib is missing, or the file cannot be written.
    """
    groups = [(title, names) for title, names in _groups(runs) if names]
    columns = min(_COLUMNS, max(len(names) for _, names in groups))
    rows = [-(-len(names) // columns) for _, names in groups]
    across = columns + 1
    heights = [_LEGEND * -(-len(runs) // across), *(_HEIGHT * count + _HEADING for count in rows)]
    figure = new_figure(_WIDTH * columns, sum(heights))
    top, *blocks = figure.subfigures(len(groups) + 1, 1, height_ratios=heights)
    at = _at(against)
    end = 1.02 * max(line[at] for run in runs for line in (*run.training, *run.evaluations)) or 1.0
    styles = [(COLOURS[i % len(COLOURS)], _STYLES[i // len(COLOURS) % len(_STYLES)]) for i in range(len(runs))]
    for block, (title, names), count in zip(blocks, groups, rows, strict=True):
        block.suptitle(title, x=0.012, ha="left", fontsize=10, color=GREY)
        panels = block.subplots(count, columns, squeeze=False).flatten()
        for place, (axes, name) in enumerate(zip(panels, names, strict=False)):
            curves = [curve(run, name, against) for run in runs]
            for one, (colour, style) in zip(curves, styles, strict=True):
                _draw(axes, one, name, colour, style)
            axes.set_xlim(0, end)
            _limit(axes, np.concatenate([one.y for one in curves]), name)
            _label(axes, name, against, lowest=place + columns >= len(names))
        for axes in panels[len(names) :]:
            axes.set_visible(False)
    handles = [_handle(colour, style) for colour, style in styles]
    labels = [run.label for run in runs]
    top.legend(handles, labels, loc="center left", ncols=min(len(runs), across), frameon=False, fontsize=9)
    top.text(0.99, 0.5, "bold: running mean", ha="right", va="center", fontsize=8.5, color=GREY)
    save_png(figure, path)


def curve(run: LoggedRun, name: str, against: Against = "samples") -> Curve:
    """The finite values of a figure."""
    at = _at(against)
    held = [line for line in (*run.training, *run.evaluations) if name in line and math.isfinite(line[name])]
    held.sort(key=lambda line: line["samples"])
    return Curve(np.array([line[at] for line in held], float), np.array([line[name] for line in held], float))


def table(runs: Sequence[LoggedRun]) -> str:
    """The evaluations as a Markdown table, a line each."""
    names = _names([line for run in runs for line in run.evaluations])
    several = len(runs) > 1
    heads = [*(["run"] if several else []), "steps", "samples", "hours", *(name.replace("_", " ") for name in names)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for run in runs:
        for line in run.evaluations:
            cells = [run.label] if several else []
            cells += [f"{line['step']:,}", f"{line['samples']:,}", f"{line['hours']:.2f}"]
            cells += [f"{line[name]:.4g}" if name in line else "" for name in names]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def smoothed(y: Float64[np.ndarray, " n"], width: int) -> Float64[np.ndarray, " n"]:
    """The running mean over `width` values (odd).

    At the beginning, where curves are steep, over as many to both sides as there are before; at the end over those
    that there are.
    """
    sums = np.concatenate([[0.0], np.cumsum(y)])
    places = np.arange(len(y))
    reach = np.minimum(places, width // 2)
    first, last = places - reach, np.minimum(places + reach + 1, len(y))
    return (sums[last] - sums[first]) / (last - first)


def _read(path: Path, label: str) -> LoggedRun:
    if not path.is_file():
        raise InputError(f"{path.parent} holds no {path.name}; give the folder of a run")
    lines = [{name: value for name, value in line.items() if _is_number(value)} for line in read_log(path)]
    if not lines:
        raise InputError(f"{path} is empty; wait until the run has written its first line")
    hours, seen = 0.0, 0.0
    for line in lines:
        if line.get("samples_per_second", 0.0) > 0:
            hours += (line["samples"] - seen) / line["samples_per_second"] / 3600
            seen = line["samples"]
        line["hours"] = hours
    training = tuple(line for line in lines if "learning_rate" in line)
    return LoggedRun(label, training, tuple(line for line in lines if "learning_rate" not in line))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _names(lines: Sequence[dict[str, float]]) -> list[str]:
    """The figures of some lines, in the order they first appear."""
    return [name for name in dict.fromkeys(name for line in lines for name in line) if name not in _COUNTS]


def _groups(runs: Sequence[LoggedRun]) -> list[tuple[str, list[str]]]:
    trained = _names([line for run in runs for line in run.training])
    parts = [name for name in trained if name not in (*_LOSSES, *_RUNNING)]
    evaluated = [name for name in _names([line for run in runs for line in run.evaluations]) if name not in trained]
    return [
        ("training loss and its parts", [*(name for name in _LOSSES if name in trained), *parts]),
        ("evaluations of the averaged weights", evaluated),
        ("the run", [name for name in _RUNNING if name in trained]),
    ]


def _at(against: Against) -> str:
    return "step" if against == "steps" else against


def _draw(axes: Any, found: Curve, name: str, colour: str, style: str) -> None:
    if not len(found.x):
        return
    few = len(found.x) < 12
    width = 1 if few or name == "learning_rate" else 2 * (len(found.x) // 40) + 5
    if width > 1:
        axes.plot(found.x, found.y, color=colour, linewidth=0.7, alpha=0.3)
    mean = smoothed(found.y, width)
    axes.plot(found.x, mean, style, color=colour, linewidth=1.6, marker="o" if few else None, markersize=4)
    if len(found.x) == 1:
        axes.annotate(
            f"{found.y[0]:.3g}", (found.x[0], found.y[0]), (-7, 0), textcoords="offset points",
            ha="right", va="center", fontsize=8, color=colour,
        )  # fmt: skip


def _limit(axes: Any, y: Float64[np.ndarray, " n"], name: str) -> None:
    """Rare spikes of a long log do not set the scale; what is compared with nothing begins at nothing."""
    low, high = np.percentile(y, (0.5, 99.5)) if len(y) > _MANY else (y.min(), y.max())
    if name in _RUNNING:
        low = 0.0
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    axes.set_ylim(0.0 if name in _RUNNING else low - margin, high + margin)


def _label(axes: Any, name: str, against: Against, lowest: bool) -> None:
    axes.set_title(name.replace("_", " "), fontsize=9.5, loc="left")
    if lowest:
        axes.set_xlabel(_AXES[against], fontsize=8)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="both", nbins=5)
    if against != "hours":
        axes.xaxis.set_major_formatter(lambda value, _: short(value))
    if name == "learning_rate":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    if name in _SHARES:
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g} %")
    finish(axes, legend=False)


def _handle(colour: str, style: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linestyle=style, linewidth=1.8)


def short(count: float) -> str:
    """A count for an axis: 1500 is 1.5k, 2000000 is 2M."""
    for unit, sign in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= unit:
            return f"{count / unit:.4g}{sign}"
    return f"{count:g}"

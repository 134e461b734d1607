"""Pictures of the diagnoses, as PNG files. Needs matplotlib: `pip install reed-core[plot]`.

Depth and time, which are ordered, take a perceptually uniform map of colours. Bands are one standard error, and one
standard deviation over batches where the title says so.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reed_core.diagnose.attainable import AttainableCosine, CosineByTime
from reed_core.diagnose.depth import DepthTable
from reed_core.diagnose.gradients import GradientTable
from reed_core.diagnose.recommend import Recommendation
from reed_core.picture import COLOURS, GREY, finish, new_figure, save_png


def plot_cosine(
    path: Path | str, curves: Mapping[str, CosineByTime], attainable: AttainableCosine | None = None
) -> None:
    """A model's cosine at each time beside what is attainable.

    Args:
        path: The PNG file.
        curves: Cosines by label (a latent, a model, a moment of training).
        attainable: Bounds of the best cosine, drawn as a band.

    Raises:
        InputError: If matplotlib is missing or the file cannot be written.
    """
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    if attainable is not None:
        axes.fill_between(
            attainable.times,
            attainable.lower,
            attainable.upper,
            color=GREY,
            alpha=0.22,
            linewidth=0,
            label="best attainable: between bounds",
        )
        for bound, style in ((attainable.upper, "-"), (attainable.lower, "--")):
            axes.plot(attainable.times, bound, style, color=GREY, linewidth=1)
    for colour, (label, curve) in zip(_colours(len(curves)), curves.items(), strict=True):
        _band(axes, curve.times, curve.mean, curve.error, colour, label)
    axes.set(xlabel="diffusion time t  (0 = data, 1 = noise)", ylabel="mean cosine with z", xlim=(0, 1))
    _from_zero(axes)
    finish(axes)
    save_png(figure, path)


def plot_depth(path: Path | str, table: DepthTable) -> None:
    """CKNNA, debiased CKA and a linear probe over depth, a line per time.

    Args:
        path: The PNG file.
        table: From `by_depth`.

    Raises:
        InputError: If matplotlib is missing or the file cannot be written.
    """
    figure = new_figure(11.5, 3.9)
    panels = (("CKNNA", table.cknna), ("debiased linear CKA", table.cka), ("linear probe: cosine with z", table.probe))
    depth = torch.arange(1, len(table.taps) + 1)
    colours = _ordered(len(table.times))
    for axes, (label, values) in zip(figure.subplots(1, 3), panels, strict=True):
        for place, time in enumerate(table.times.tolist()):
            error = table.probe_error[:, place] if values is table.probe else torch.zeros_like(values[:, place])
            _band(axes, depth, values[:, place], error, colours[place], f"t = {time:g}")
        if values is table.probe:
            constant = float(table.constant.mean())
            axes.axhline(constant, color=GREY, linewidth=1, linestyle=":", label="constant prediction")
        _depth_axis(axes, table.taps, "module tapped")
        axes.set_ylabel(label)
        _from_zero(axes)
        finish(axes, legend=False)
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8.5, loc="outside right center")
    figure.suptitle(f"hidden states and z: {table.rows} rows", fontsize=10)
    save_png(figure, path)


def plot_gradients(path: Path | str, table: GradientTable) -> None:
    """Cosine of denoising and alignment gradients, and alignment's share of them, over depth.

    Args:
        path: The PNG file.
        table: From `gradient_table`.

    Raises:
        InputError: If matplotlib is missing or the file cannot be written.
    """
    figure = new_figure(8.4, 3.9)
    left, right = figure.subplots(1, 2)
    depth = torch.arange(1, len(table.blocks) + 1)
    for row, (colour, name) in enumerate(zip(_colours(len(table.latents)), table.latents, strict=True)):
        _band(left, depth, table.at.cosine[row], table.at.cosine_spread[row], colour, name)
        left.plot(depth, table.at.summed_cosine[row], color=colour, linestyle="--", linewidth=1)
        _band(right, depth, table.at.share[row], table.at.share_spread[row], colour, name)
    left.axhline(0.0, color=GREY, linewidth=0.8)
    left.set_ylabel("cosine of denoising and\nalignment gradients")
    right.set(ylabel="alignment's share of the\ngradient norms", ylim=(-0.02, 1.02))
    for axes in (left, right):
        _depth_axis(axes, table.blocks, "block")
        finish(axes, legend=axes is right)
    caption = f"bands: standard deviation over {table.batches} batches; dashed: gradients summed over them"
    figure.suptitle(caption, fontsize=10)
    save_png(figure, path)


def plot_recommendation(path: Path | str, found: Recommendation) -> None:
    """Gradient cosine and weight along the probe runs, and the gain of each depth.

    Args:
        path: The PNG file.
        found: From `recommend`.

    Raises:
        InputError: If matplotlib is missing or the file cannot be written.
    """
    figure = new_figure(11.5, 3.9)
    cosine, weight, gain = figure.subplots(1, 3)
    for colour, entry in zip(_ordered(len(found.evidence)), found.evidence, strict=True):
        samples = [look.samples for look in entry.looks]
        means, errors = [look.cosine for look in entry.looks], [look.error for look in entry.looks]
        cosine.errorbar(
            samples, means, errors, color=colour, marker="o", markersize=3.5, elinewidth=0.8, label=entry.tap
        )
        weight.plot(samples, [look.weight for look in entry.looks], color=colour, marker="o", markersize=3.5)
    places = range(len(found.evidence))
    for place, colour, entry in zip(places, _ordered(len(found.evidence)), found.evidence, strict=True):
        gain.errorbar(place + 1, entry.gain, yerr=2 * entry.gain_error, color=colour, marker="o", capsize=3)
    for axes in (cosine, gain):
        axes.axhline(0.0, color=GREY, linewidth=0.8)
    if found.stop is not None:
        cosine.axvline(found.stop, color=GREY, linewidth=0.8, linestyle="--")
    cosine.set(xlabel="samples seen", ylabel="cosine of gradients\n(bars: standard error)")
    weight.set(xlabel="samples seen", ylabel="weight at the target share", ylim=(0, None))
    gain.set(ylabel="drop in held-out denoising loss\n(bars: 2 standard errors)")
    _depth_axis(gain, tuple(entry.tap for entry in found.evidence), "module tapped")
    for axes in (cosine, weight):
        axes.locator_params(axis="x", nbins=4)
    for axes in (cosine, weight, gain):
        finish(axes, legend=False)
    figure.legend(*cosine.get_legend_handles_labels(), frameon=False, fontsize=8.5, loc="outside right center")
    save_png(figure, path)


def _band(axes: Any, x: Tensor, mean: Tensor, spread: Tensor, colour: Any, label: str) -> None:
    axes.plot(x, mean, color=colour, label=label, linewidth=1.6, marker="o", markersize=3.5)
    axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)


def _depth_axis(axes: Any, paths: tuple[str, ...], label: str) -> None:
    """One tick per module, at most a dozen labels; the folder that all modules share goes into the axis label."""
    folder = {path.rpartition(".")[0] for path in paths}
    shared = folder.pop() if len(folder) == 1 else ""
    short = [path.removeprefix(f"{shared}.") for path in paths]
    shown = range(0, len(paths), -(-len(paths) // 12))
    axes.set_xticks([place + 1 for place in shown], [short[place] for place in shown])
    if max(map(len, short)) > 3:
        axes.tick_params(axis="x", labelrotation=40)
    axes.set_xlabel(f"{label}: {shared}.*" if shared else label)
    axes.set_xlim(0.7, len(paths) + 0.3)


def _from_zero(axes: Any) -> None:
    """The axis of a similarity begins at 0, unless something lies below."""
    if axes.get_ylim()[0] > 0:
        axes.set_ylim(bottom=0)


def _colours(count: int) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(count)]


def _ordered(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * place / max(count - 1, 1)) for place in range(count)]

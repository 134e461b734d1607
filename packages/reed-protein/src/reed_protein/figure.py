"""What the pictures share: a canvas laid out in inches, rows of residues, letters as shapes, colours.

Residues run from left to right in panels of `PER_ROW`, a new panel for every chain; ticks carry author numbers, the
first of a panel the whole residue id. Colours are those of Okabe and Ito, which remain distinct to the colour-blind,
and every coloured letter can also be read. Needs matplotlib: `pip install 'reed-protein[plot]'`.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from reed_core.errors import InputError
from reed_core.files import write_with

from reed_protein.structure import Structure

PER_ROW = 60
DPI = 160
_MAX_INCHES = 200.0
_TICK = 10

GREY = "#7f7f7f"
INK = "#262626"
PALE = "#DDDDDD"
# By side chain: aliphatic, aromatic, glycine-proline-cysteine, polar, basic, acidic.
FAMILIES = {
    "AVILM": "#4d4d4d",
    "FWY": "#E69F00",
    "GPC": "#CC79A7",
    "STNQ": "#009E73",
    "HKR": "#0072B2",
    "DE": "#D55E00",
}
FAMILY_NAMES = ("aliphatic", "aromatic", "Gly, Pro, Cys", "polar", "basic", "acidic")
FAMILY = {letter: family for family in FAMILIES for letter in family}


class Glyph(NamedTuple):
    """A letter stretched into a box: lower left corner, width and height, in data units."""

    letter: str
    x: float
    y: float
    width: float
    height: float


class Panel(NamedTuple):
    """A row of residues: indices into the structure, and where its axes stand."""

    residues: list[int]
    axes: Any


def check_png_path(path: Path, option: str) -> None:
    """Refuses, before any work is done, a picture that could not be made.

    Raises:
        InputError: If the path does not end in .png, or matplotlib is missing.
    """
    if path.suffix.lower() != ".png":
        raise InputError(f"{option} {path}: pictures are written as .png; give it that ending")
    _figure_class()


def split_rows(structure: Structure, positions: Iterable[int] | np.ndarray) -> list[list[int]]:
    """Residues in rows of at most `PER_ROW`, a new row for every chain."""
    rows: list[list[int]] = []
    for position in map(int, positions):
        same = rows and structure.chain_ids[rows[-1][-1]] == structure.chain_ids[position]
        if same and len(rows[-1]) < PER_ROW:
            rows[-1].append(position)
        else:
            rows.append([position])
    return rows


def canvas(
    structure: Structure,
    rows: Sequence[Sequence[int]],
    cell: float,
    height: float,
    gap: float,
    title: str,
    subtitle: str = "",
) -> tuple[Any, list[Panel]]:
    """A figure with an axes per row, each residue `cell` inches wide, data x from 0 to the residues of the row.

    Args:
        structure: The structure.
        rows: Its residues, row by row.
        cell: Width of a residue, inches.
        height: Height of a row, inches.
        gap: Between rows, inches: room for ticks.
        title: Above all.
        subtitle: Below it, smaller.

    Raises:
        InputError: If matplotlib is missing, or the picture would be too tall.
    """
    left, right, top, bottom = 0.75, 0.25, 0.75, 0.62
    longest = max(len(row) for row in rows)
    width = left + right + cell * max(longest, 40)
    tall = top + bottom + len(rows) * height + (len(rows) - 1) * gap
    if tall > _MAX_INCHES:
        raise InputError(f"a picture of {sum(map(len, rows))} residues is too tall to be read; choose fewer residues")
    figure = _figure_class()(figsize=(width, tall), facecolor="white")
    figure.text(left / width, 1 - 0.3 / tall, title, fontsize=11, color=INK, va="center", weight="bold")
    figure.text(left / width, 1 - 0.52 / tall, subtitle, fontsize=8.5, color=GREY, va="center")
    panels = []
    for index, row in enumerate(rows):
        y = tall - top - (index + 1) * height - index * gap
        axes = figure.add_axes((left / width, y / tall, cell * len(row) / width, height / tall))
        axes.set_xlim(0, len(row))
        _label(axes, structure, list(row))
        panels.append(Panel(list(row), axes))
    return figure, panels


def bottom_strip(figure: Any, inches: float) -> Any:
    """Axes of a given width in the free strip at the foot of the canvas, for a scale."""
    width, tall = figure.get_size_inches()
    return figure.add_axes((0.75 / width, 0.3 / tall, inches / width, 0.09 / tall))


def legend(figure: Any, entries: Sequence[tuple[str, str]]) -> None:
    """Coloured squares with names in the strip at the foot of the canvas."""
    from matplotlib.patches import Patch

    width, tall = figure.get_size_inches()
    handles = [Patch(facecolor=colour, edgecolor=GREY, linewidth=0.4, label=name) for name, colour in entries]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.75 / width, 0.04 / tall),
        borderaxespad=0,
        borderpad=0,
        ncols=len(entries),
        frameon=False,
        fontsize=8.5,
        handlelength=0.9,
        handleheight=0.9,
        columnspacing=1.3,
    )


def draw_glyphs(axes: Any, glyphs: Sequence[Glyph], colour: str) -> None:
    """Draws letters as one shape: thousands of them cost what one costs."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Shape
    from matplotlib.transforms import Affine2D

    shapes = []
    for glyph in glyphs:
        outline = _outline(glyph.letter)
        box = outline.get_extents()
        move = Affine2D().translate(-box.x0, -box.y0).scale(glyph.width / box.width, glyph.height / box.height)
        shapes.append(outline.transformed(move.translate(glyph.x, glyph.y)))
    if shapes:
        axes.add_patch(PathPatch(Shape.make_compound_path(*shapes), facecolor=colour, edgecolor="none"))


def text_glyph(letter: str, x: float, y: float, cell: float, row: float, size: float = 0.085) -> Glyph:
    """A letter `size` inches tall, centred in the unit cell at (x, y), which is `cell` by `row` inches."""
    box = _outline(letter).get_extents()
    capital = _outline("H").get_extents().height
    width, height = (size * extent / capital for extent in (box.width, box.height))
    low = (1 - size / row) / 2 + (box.y0 / capital) * size / row
    return Glyph(letter, x + 0.5 - width / cell / 2, y + low, width / cell, height / row)


def save(figure: Any, path: Path | str) -> None:
    """Writes the picture, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    write_with(path, lambda aside: figure.savefig(aside, dpi=DPI, format="png"))


def _figure_class() -> Callable[..., Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("a picture needs matplotlib, which is not installed; pip install 'reed-protein[plot]'") from (
            error
        )
    return Figure


def _outline(letter: str) -> Any:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), letter, size=1, prop=FontProperties(family="DejaVu Sans", weight="bold"))


def _label(axes: Any, structure: Structure, row: list[int]) -> None:
    """Ticks under the residues: the id of the first, then every tenth number; dashes where the chain is broken."""
    places, labels = [0.5], [structure.residue_ids[row[0]]]
    for place, position in enumerate(row[1:], start=1):
        number, code = int(structure.residue_numbers[position]), structure.insertion_codes[position]
        joined = position == row[place - 1] + 1 and not structure.breaks[position]
        if not joined:
            axes.axvline(place, color=INK, linewidth=0.9, linestyle=(0, (2, 1.5)), zorder=4)
        if place >= 3 and ((number % _TICK == 0 and not code) or (not joined and place - places[-1] > 3)):
            places.append(place + 0.5)
            labels.append(f"{number}{code}")
    axes.set_xticks(places, labels, fontsize=7.5, color=INK)
    axes.tick_params(axis="both", length=2, width=0.6, pad=2, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=GREY, linewidth=0.6)


def cell_image(colours: np.ndarray, axes: Any, **options: Any) -> Any:
    """An image of unit cells, row 0 at the top: [rows, residues] numbers or [rows, residues, 3] colours."""
    rows, columns = colours.shape[:2]
    return axes.imshow(
        colours, extent=(0, columns, 0, rows), aspect="auto", interpolation="nearest", origin="upper", **options
    )

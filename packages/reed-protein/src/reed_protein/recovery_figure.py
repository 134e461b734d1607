"""Designs against the native sequence, aligned: where they agree, where they keep the kind of side chain, where not.

Dark blue: the design has the native residue. Light blue: a residue of the same family (`figure.FAMILIES`). White:
another. Grey: not designed. A native of unknown type (X) agrees with nothing. The bar below each column says in how
many designs the native came back.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from reed_protein import figure as fig
from reed_protein.residues import UNKNOWN
from reed_protein.structure import Structure

MOST = 40
_CELL, _LINE = 0.135, 0.15
_DARK, _LIGHT, _WHITE, _FIXED = "#0072B2", "#A9D6F0", "#FFFFFF", fig.PALE


def agreement(native: str, sequence: str, designed: Bool[np.ndarray, " l"]) -> list[str]:
    """The colour of each residue of a design."""
    colours = []
    for true, letter, free in zip(native, sequence, designed, strict=True):
        if not free:
            colours.append(_FIXED)
        elif true == UNKNOWN or letter == UNKNOWN or fig.FAMILY[true] != fig.FAMILY[letter]:
            colours.append(_WHITE)
        else:
            colours.append(_DARK if true == letter else _LIGHT)
    return colours


def draw_recovery(
    path: Path | str,
    structure: Structure,
    sequences: Sequence[str],
    designed: Bool[np.ndarray, " l"],
) -> None:
    """Draws designs below the native; the first `MOST` of them.

    Args:
        path: The PNG file.
        structure: Ids and the native sequence.
        sequences: The designs, a letter per residue.
        designed: The designed residues.

    Raises:
        InputError: If matplotlib is missing, or the file cannot be written.
    """
    shown = sequences[:MOST]
    colours = np.array([agreement(structure.sequence, sequence, designed) for sequence in shown])
    known = designed & np.array([letter != UNKNOWN for letter in structure.sequence])
    same = np.array([[a == b for a, b in zip(structure.sequence, sequence, strict=True)] for sequence in shown])
    mean = f"mean recovery {100 * same[:, known].mean():.1f} %" if known.any() else "no native residue is known"
    count = f"{len(shown)} designs" if len(shown) > 1 else "1 design"
    if len(shown) < len(sequences):
        count = f"the first {len(shown)} of {len(sequences)} designs"
    lines = len(shown) + 2
    rows = fig.split_rows(structure, range(len(structure)))
    title = f"{structure.name}: designs against the native"
    figure, panels = fig.canvas(structure, rows, _CELL, _LINE * lines, 0.34, title, f"{count}, {mean}")
    for residues, axes in panels:
        _draw_row(axes, structure, residues, shown, colours, same & designed, lines)
    entries = [("native residue", _DARK), ("same kind of side chain", _LIGHT), ("another", _WHITE)]
    fig.legend(figure, entries if designed.all() else [*entries, ("not designed", _FIXED)])
    fig.save(figure, path)


def _draw_row(
    axes: Any,
    structure: Structure,
    residues: list[int],
    shown: Sequence[str],
    colours: np.ndarray,
    same: np.ndarray,
    lines: int,
) -> None:
    """One panel: the native on top, the designs below it, the bars at the foot."""
    from matplotlib.colors import to_rgb

    cells = np.ones((lines, len(residues), 3))
    cells[1:-1] = [[to_rgb(colour) for colour in row] for row in colours[:, residues]]
    fig.cell_image(cells, axes)
    dark: list[fig.Glyph] = []
    pale: list[fig.Glyph] = []
    for place, position in enumerate(residues):
        letters = [structure.sequence[position], *(sequence[position] for sequence in shown)]
        for line, letter in enumerate(letters):
            glyph = fig.text_glyph(letter, place, lines - 1 - line, _CELL, _LINE, 0.078)
            (pale if line and colours[line - 1, position] == _DARK else dark).append(glyph)
    fig.draw_glyphs(axes, dark, fig.INK)
    fig.draw_glyphs(axes, pale, "white")
    axes.bar(
        np.arange(len(residues)) + 0.5, 0.85 * same[:, residues].mean(0), width=0.8, color=_DARK, linewidth=0, zorder=2
    )
    axes.axhline(lines - 1, color=fig.INK, linewidth=0.8)
    axes.set_ylim(0, lines)
    names = ["recovered", *map(str, range(len(shown), 0, -1)), "native"]
    axes.set_yticks(np.arange(lines) + 0.5, names, fontsize=7, color=fig.INK)
    axes.tick_params(axis="y", length=0)

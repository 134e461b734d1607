"""The heat map of a mutation scan: residues across, the twenty mutants down, log-odds as colour.

Blue: the mutant is more probable than the wild type; red: less; white: alike. Dots mark the wild type. Amino acids are
grouped by side chain. The scale is the same for every scan: it ends at -8 and 4 nats, because most mutants of a native
are less probable, and what lies beyond has the colour of the end.
"""

from pathlib import Path

import numpy as np

from reed_protein import figure as fig
from reed_protein.residues import AMINO_ACIDS
from reed_protein.scan import MutationScan

ROWS = "".join(fig.FAMILIES)
_CELL, _LINE = 0.145, 0.125
_LOWEST, _HIGHEST = -8.0, 4.0


def draw_heatmap(path: Path | str, found: MutationScan) -> None:
    """Draws a scan.

    Args:
        path: The PNG file.
        found: The scan.

    Raises:
        InputError: If matplotlib is missing, or the file cannot be written.
    """
    from matplotlib.colors import TwoSlopeNorm

    structure = found.structure
    values = found.log_odds[:, [AMINO_ACIDS.index(letter) for letter in ROWS]]
    rows = fig.split_rows(structure, found.positions)
    figure, panels = fig.canvas(
        structure,
        rows,
        _CELL,
        _LINE * len(ROWS),
        0.32,
        f"{structure.name}: single mutants",
        "log p(mutant) - log p(wild type), given the backbone and all other residues; dots: wild type",
    )
    scale = TwoSlopeNorm(0.0, _LOWEST, _HIGHEST)
    first, image = 0, None
    for residues, axes in panels:
        block = values[first : first + len(residues)].T
        first += len(residues)
        image = fig.cell_image(block, axes, cmap="RdBu", norm=scale)
        wild = [ROWS.index(found.sequence[position]) for position in residues]
        axes.scatter(
            np.arange(len(residues)) + 0.5, len(ROWS) - 0.5 - np.array(wild), s=7, color=fig.INK, linewidths=0, zorder=3
        )
        axes.set_ylim(0, len(ROWS))
        axes.set_yticks(np.arange(len(ROWS)) + 0.5, ROWS[::-1], fontsize=6.8, family="monospace")
        axes.tick_params(axis="y", length=0, pad=2)
        for label in axes.get_yticklabels():
            label.set(color=fig.FAMILIES[fig.FAMILY[label.get_text()]], weight="bold")
        height = len(ROWS)
        for family in fig.FAMILIES:
            height -= len(family)
            if height:
                axes.axhline(height, color="white", linewidth=1.2)
    bar = figure.colorbar(image, cax=fig.bottom_strip(figure, 2.4), orientation="horizontal")
    bar.set_ticks([-8, -4, 0, 2, 4], labels=["≤ -8", "-4", "0", "2", "≥ 4"])
    bar.ax.tick_params(labelsize=7.5, length=2, pad=2)
    bar.outline.set(linewidth=0.4)
    words = "nats; blue: the mutant is more probable than the wild type"
    bar.ax.text(1.05, 0.5, words, transform=bar.ax.transAxes, fontsize=8.5, va="center", color=fig.INK)
    fig.save(figure, path)

"""A sequence logo: at every residue the twenty letters, stacked, each as tall as it is probable.

With heights in bits a stack is log2(20) - H bits tall (H the entropy of its probabilities; 4.32 bits when one residue
is certain, nothing when all are alike; after Schneider & Stephens, doi 10.1093/nar/18.20.6097); with heights as
probabilities every stack is 1 tall. The likeliest letter is on top. Below each stack: the native residue.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32
from reed_core.errors import InputError

from reed_protein import figure as fig
from reed_protein.residues import AMINO_ACIDS
from reed_protein.structure import Structure

Heights = Literal["bits", "probability"]
_CELL, _ROW = 0.155, 1.0
_LEAST = 0.008  # of the axis: what is smaller cannot be seen


def letter_heights(probabilities: Float[np.ndarray, "n 20"], heights: Heights) -> Float[np.ndarray, "n 20"]:
    """The height of every letter: its probability, or its share of the information in bits."""
    p = probabilities.astype(np.float64)
    if heights == "probability":
        return p
    entropy = -(p * np.log2(np.where(p > 0, p, 1.0))).sum(1, keepdims=True)
    return p * np.maximum(np.log2(len(AMINO_ACIDS)) - entropy, 0.0)


def frequencies(sequences: list[str]) -> Float32[np.ndarray, "n 20"]:
    """The share of each amino acid at each residue of aligned sequences; X counts for all twenty alike.

    Raises:
        InputError: If there is no sequence.
    """
    if not sequences:
        raise InputError("a logo needs at least one sequence, got none")
    one_hot = np.eye(len(AMINO_ACIDS))
    table = {letter: one_hot[index] for index, letter in enumerate(AMINO_ACIDS)}
    flat = np.full(len(AMINO_ACIDS), 1 / len(AMINO_ACIDS))
    total = sum(np.array([table.get(letter, flat) for letter in sequence]) for sequence in sequences)
    return np.asarray(total / len(sequences), dtype=np.float32)


def draw_logo(
    path: Path | str,
    structure: Structure,
    probabilities: Float32[np.ndarray, "n 20"],
    subtitle: str,
    heights: Heights = "bits",
    designed: Bool[np.ndarray, " n"] | None = None,
) -> None:
    """Draws a logo.

    Args:
        path: The PNG file.
        structure: Ids and native letters.
        probabilities: Of the amino acids at every residue.
        subtitle: Where they come from.
        heights: What the heights are.
        designed: The designed residues, if these are designs; the others are pale.

    Raises:
        InputError: If matplotlib is missing, or the file cannot be written.
    """
    tall = letter_heights(probabilities, heights)
    top = float(np.log2(len(AMINO_ACIDS))) if heights == "bits" else 1.0
    rows = fig.split_rows(structure, range(len(structure)))
    foot = 0.16 * top / _ROW  # the strip with the native letters, in data units
    figure, panels = fig.canvas(structure, rows, _CELL, _ROW + 0.16, 0.3, f"{structure.name}: sequence logo", subtitle)
    for residues, axes in panels:
        axes.set_ylim(-foot, top)
        by_family: dict[str, list[fig.Glyph]] = {family: [] for family in fig.FAMILIES}
        natives: list[fig.Glyph] = []
        fixed: list[fig.Glyph] = []
        for place, position in enumerate(residues):
            base = 0.0
            for letter in np.argsort(tall[position], kind="stable"):
                height = float(tall[position, letter])
                if height >= _LEAST * top:
                    name = AMINO_ACIDS[letter]
                    pad = 0.3 if name == "I" else 0.04
                    glyph = fig.Glyph(name, place + pad, base, 1 - 2 * pad, 0.97 * height)
                    free = designed is None or designed[position]
                    (by_family[fig.FAMILY[name]] if free else fixed).append(glyph)
                base += height
            glyph = fig.text_glyph(structure.sequence[position], place, 0, _CELL, 0.16, 0.08)
            natives.append(glyph._replace(y=(glyph.y - 1) * foot, height=glyph.height * foot))
        for family, glyphs in by_family.items():
            fig.draw_glyphs(axes, glyphs, fig.FAMILIES[family])
        fig.draw_glyphs(axes, natives, fig.GREY)
        fig.draw_glyphs(axes, fixed, fig.PALE)
        axes.axhline(0, color=fig.GREY, linewidth=0.5)
        ticks = [0, 1, 2, 3, 4] if heights == "bits" else [0, 0.5, 1]
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=7.5, color=fig.INK)
        axes.set_ylabel(heights, fontsize=8, color=fig.INK)
    names = [f"{name} ({family})" for name, family in zip(fig.FAMILY_NAMES, fig.FAMILIES, strict=True)]
    entries = list(zip(names, fig.FAMILIES.values(), strict=True))
    fig.legend(figure, entries if designed is None or designed.all() else [*entries, ("not designed", fig.PALE)])
    fig.save(figure, path)

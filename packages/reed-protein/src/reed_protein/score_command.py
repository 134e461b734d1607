"""The commands `score`, `probs` and `scan`: a structure and sequences in, tables, probabilities and pictures out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from reed_core import console
from reed_core.errors import InputError

from reed_protein import figure, given, heatmap, logo, probabilities, recovery_figure, tables
from reed_protein.design import Designer, load
from reed_protein.given import GivenSequence
from reed_protein.outputs import check_distinct
from reed_protein.scan import scan, scan_table
from reed_protein.score_table import score_table
from reed_protein.selection import designed_residues, select_residues
from reed_protein.structure import Structure, read_structure


@dataclass(frozen=True)
class Source:
    """What all three commands read.

    Attributes:
        file: The structure.
        chains: Chains to read; all if None.
        sequences: A FASTA file; the native sequence if None.
        weights: Folder of weights; those of the package if None.
        model: Which model of the file, from 1.
    """

    file: Path
    chains: tuple[str, ...] | None = None
    sequences: Path | None = None
    weights: Path | None = None
    model: int = 1

    def read(self) -> tuple[Structure, list[GivenSequence]]:
        """The structure, its notes told, and the sequences.

        Raises:
            InputError: If a file cannot be read, or a sequence does not fit the structure.
        """
        structure = read_structure(self.file, self.chains, self.model)
        for note in structure.notes:
            console.report(f"note: {note}")
        if self.sequences is None:
            return structure, [given.native(structure)]
        return structure, given.read_sequences(structure, self.sequences)

    def designer(self, device: str) -> Designer:
        """The model."""
        return load(self.weights, device)


def run_score(
    source: Source,
    design: str | None,
    fix: str | None,
    out: Path | None,
    recovery: Path | None,
    device: str,
) -> str:
    """Scores sequences.

    Args:
        source: What is read.
        design: Residues that count as designed, or None.
        fix: Residues that do not, or None.
        out: A CSV or JSON file, or None.
        recovery: A PNG file for the sequences against the native.
        device: Where to run the network.

    Returns:
        What goes to standard output: a table for a person, or nothing when `out` is written.

    Raises:
        InputError: If anything given cannot be used. Files are then left as they were.
    """
    _check_paths(out, recovery, "--recovery")
    structure, sequences = source.read()
    designed = designed_residues(structure, design, fix)
    table = score_table(source.designer(device), structure, sequences, designed)
    if recovery is not None:
        recovery_figure.draw_recovery(recovery, structure, [item.sequence for item in sequences], designed)
    if out is not None:
        tables.write_table(out, table)
    console.report(
        f"{structure.name}: scored {len(sequences)} sequence{'s' * (len(sequences) != 1)} over {designed.sum()} of "
        f"{len(structure)} residues, in nats per residue: lower is more probable{_arrow(out)}"
    )
    hidden = ("sequence", *(name for name in table.columns if designed.all() and name.endswith("_all")))
    return tables.aligned_text(table, hidden) if out is None else ""


def run_probs(
    source: Source,
    out: Path,
    logo_file: Path | None,
    logo_of: Literal["backbone", "conditional"],
    heights: logo.Heights,
    device: str,
) -> None:
    """Writes probabilities of every residue.

    Args:
        source: What is read.
        out: The npz file.
        logo_file: A PNG file for a sequence logo of the probabilities.
        logo_of: Which probabilities it shows: given the backbone alone, or given the first sequence.
        heights: What its heights are.
        device: Where to run the network.

    Raises:
        InputError: If anything given cannot be used. Files are then left as they were.
    """
    probabilities.check_npz_path(out, "--out")
    if logo_file is not None:
        figure.check_png_path(logo_file, "--logo")
    check_distinct([out, logo_file])
    structure, sequences = source.read()
    designer = source.designer(device)
    encoding = designer.encode(structure)
    backbone = probabilities.backbone_probabilities(designer, encoding)
    conditional = probabilities.conditional_probabilities(designer, encoding, sequences, progress=True)
    probabilities.write_probabilities(out, structure, sequences, backbone, conditional)
    if logo_file is not None:
        shown, words = backbone, "probabilities given the backbone alone"
        if logo_of == "conditional":
            shown = conditional[0]
            words = f"probabilities of each residue given the backbone and the others of {sequences[0].name}"
        logo.draw_logo(logo_file, structure, shown, words, heights)
    console.report(
        f"{structure.name}: probabilities of {len(structure)} residues, given the backbone and given the others of "
        f"{len(sequences)} sequence{'s' * (len(sequences) != 1)}{_arrow(out)}"
    )


def run_scan(
    source: Source,
    record: int,
    residues: str | None,
    out: Path | None,
    heat: Path | None,
    device: str,
) -> str:
    """Ranks every single mutant.

    Args:
        source: What is read.
        record: Which sequence of the FASTA file is the wild type, from 1.
        residues: The residues to scan, as `selection` reads them; all if None.
        out: A CSV or JSON file, or None.
        heat: A PNG file for the heat map.
        device: Where to run the network.

    Returns:
        What goes to standard output: CSV, or nothing when `out` is written.

    Raises:
        InputError: If anything given cannot be used. Files are then left as they were.
    """
    _check_paths(out, heat, "--heatmap")
    structure, sequences = source.read()
    if not 1 <= record <= len(sequences):
        raise InputError(f"--record {record}: expected 1 to {len(sequences)}, the number of sequences given")
    chosen = np.ones(len(structure), dtype=bool) if residues is None else select_residues(structure, residues)
    found = scan(source.designer(device), structure, sequences[record - 1], chosen, progress=True)
    table = scan_table(found)
    unknown = int(chosen.sum()) - len(found.positions)
    if unknown:
        console.report(f"note: {unknown} residue{'s' * (unknown != 1)} of unknown type (X) not scanned")
    if heat is not None:
        heatmap.draw_heatmap(heat, found)
    if out is not None:
        tables.write_table(out, table)
    better = int((found.log_odds > 0).sum())
    console.report(
        f"{structure.name}: {len(table.rows)} mutants of {len(found.positions)} residues, {better} more probable than "
        f"the wild type{_arrow(out)}"
    )
    return tables.csv_text(table) if out is None else ""


def _check_paths(out: Path | None, picture: Path | None, option: str) -> None:
    """Refuses a table or a picture that could not be written, before any work is done."""
    if out is not None:
        tables.check_table_path(out, "--out")
    if picture is not None:
        figure.check_png_path(picture, option)
    check_distinct([out, picture])


def _arrow(out: Path | None) -> str:
    return f" -> {out}" if out else ""

"""What a set of designs can be written as, beside FASTA: one request, checked before the work, written after it.

scores      CSV or JSON: the native and the designs, each of the three scores (`score_table`)
probs       npz: probabilities at every residue, given the backbone alone and given each design (`probabilities`)
threaded    PDB or mmCIF: each design on the backbone, confidence as B-factor; `_1`, `_2` ... for several designs
logo        PNG: how often each amino acid was chosen, at every residue
recovery    PNG: the designs aligned with the native, coloured by agreement
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from reed_core.errors import InputError
from reed_core.files import write_text

from reed_protein import figure, logo, recovery_figure
from reed_protein.design import Design, Designer
from reed_protein.given import GivenSequence, native
from reed_protein.network import Encoding
from reed_protein.probabilities import (
    backbone_probabilities,
    check_npz_path,
    conditional_probabilities,
    confidence,
    write_probabilities,
)
from reed_protein.residues import tokens
from reed_protein.score_table import score_table
from reed_protein.structure import Structure
from reed_protein.tables import check_table_path, write_table
from reed_protein.threaded import check_threaded_path, numbered_paths, threaded_text


@dataclass(frozen=True)
class Outputs:
    """The files that were asked for; None leaves one out. The names are those of the options."""

    scores: Path | None = None
    probs: Path | None = None
    threaded: Path | None = None
    logo: Path | None = None
    recovery: Path | None = None

    def __bool__(self) -> bool:
        return any(path is not None for _, path in self._named())

    def check(self, others: Sequence[Path | None] = ()) -> None:
        """Refuses, before any work is done, what could not be written.

        Args:
            others: Files that the command writes besides.

        Raises:
            InputError: If an ending is not that of a format, two files are one, or matplotlib is missing for a picture.
        """
        checks = {
            "scores": check_table_path,
            "probs": check_npz_path,
            "threaded": check_threaded_path,
            "logo": figure.check_png_path,
            "recovery": figure.check_png_path,
        }
        for option, path in self._named():
            if path is not None:
                checks[option](path, f"--{option}")
        check_distinct([*(path for _, path in self._named()), *others])

    def _named(self) -> Iterator[tuple[str, Path | None]]:
        return ((field.name, getattr(self, field.name)) for field in fields(self))


def check_distinct(paths: Sequence[Path | None]) -> None:
    """Refuses two outputs to one file.

    Raises:
        InputError: If two paths are the same.
    """
    given = [path for path in paths if path is not None]
    for index, path in enumerate(given):
        if path.absolute() in [other.absolute() for other in given[:index]]:
            raise InputError(f"{path} is given for two outputs; give each a file of its own")


def write_outputs(
    outputs: Outputs,
    designer: Designer,
    structure: Structure,
    designs: Sequence[Design],
    designed: Bool[np.ndarray, " l"],
    encoding: Encoding | None = None,
    progress: bool = False,
) -> tuple[Path, ...]:
    """Writes what was asked for; each file whole or not at all.

    Args:
        outputs: The files.
        designer: The model.
        structure: The backbone, and the native sequence.
        designs: The designs.
        designed: The designed residues.
        encoding: The backbone, encoded, where the caller has it already.
        progress: Show progress bars on standard error.

    Returns:
        The files written.

    Raises:
        InputError: If a format cannot hold the structure, or a file cannot be written.
    """
    if not outputs:
        return ()
    outputs.check()
    written: list[Path] = []
    given = [GivenSequence(structure.name, item.sequence, item.temperature, item.seed, item.sample) for item in designs]
    if encoding is None and (outputs.scores or outputs.probs or outputs.threaded):
        encoding = designer.encode(structure)
    if outputs.scores is not None:
        table = score_table(designer, structure, [native(structure), *given], designed, encoding)
        write_table(outputs.scores, table, "--scores")
        written.append(outputs.scores)
    if encoding is not None and (outputs.probs or outputs.threaded):
        conditional = conditional_probabilities(designer, encoding, given, progress)
        if outputs.probs is not None:
            backbone = backbone_probabilities(designer, encoding)
            write_probabilities(outputs.probs, structure, given, backbone, conditional)
            written.append(outputs.probs)
        if outputs.threaded is not None:
            written += _write_threaded(outputs.threaded, structure, designs, conditional)
    sequences = [item.sequence for item in designs]
    if outputs.logo is not None:
        count = f"{len(designs)} designs" if len(designs) > 1 else "1 design"
        share = logo.frequencies(sequences)
        logo.draw_logo(outputs.logo, structure, share, f"frequencies in {count}", designed=designed)
        written.append(outputs.logo)
    if outputs.recovery is not None:
        recovery_figure.draw_recovery(outputs.recovery, structure, sequences, designed)
        written.append(outputs.recovery)
    return tuple(written)


def _write_threaded(path: Path, structure: Structure, designs: Sequence[Design], conditional: np.ndarray) -> list[Path]:
    """A file for each design; every text is made before the first is written."""
    paths = numbered_paths(path, len(designs))
    texts = []
    for item, probabilities in zip(designs, conditional, strict=True):
        percent = confidence(probabilities, tokens(item.sequence))
        remark = f"design {item.sample}, seed {item.seed}, temperature {item.temperature:g}"
        if item.score is not None:
            remark += f", {item.score_kind} score {item.score:.4f}"
        texts.append(threaded_text(structure, item.sequence, percent, path.suffix, [remark]))
    for place, text in zip(paths, texts, strict=True):
        write_text(place, text)
    return paths

"""What the model thinks of every residue: probabilities of the twenty amino acids, site by site.

backbone      p(s_i | backbone): every residue masked, one evaluation. The model's opinion of the place alone.
conditional   p(s_i | backbone, all s_j with j != i): an evaluation per residue i, in which only i is masked.

All evaluations of a structure share one encoding. Those of the second kind differ from the sequence in one residue and
are looked at in one: only states that the one reaches and the other depends on are computed anew, so that the cost of
a residue does not grow with the length. A residue of unknown type (X) is shown to the others as unknown.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from reed_core.errors import InputError
from reed_core.files import write_with
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from reed_protein.design import Designer
from reed_protein.given import GivenSequence, token_rows
from reed_protein.network import MASK_TOKEN, Encoding, InverseFolding
from reed_protein.residues import AMINO_ACIDS
from reed_protein.score import rows_at_once
from reed_protein.structure import Structure

_BAR_FROM = 40  # evaluations


@torch.no_grad()
def backbone_log_probabilities(network: InverseFolding, encoding: Encoding) -> Float[Tensor, "n 20"]:
    """Log p(s_i | backbone), nats, of one encoded backbone."""
    masked = torch.full(encoding.nodes.shape[:2], MASK_TOKEN, device=encoding.nodes.device)
    return network(masked, None, encoding)[0].log_softmax(-1)


@torch.no_grad()
def conditional_log_probabilities(
    network: InverseFolding,
    encoding: Encoding,
    tokens: Int[Tensor, "n"],
    positions: Int[Tensor, "p"] | None = None,
    progress: bool = False,
) -> Float[Tensor, "p 20"]:
    """Log p(s_i | backbone, all other residues), nats, at some positions.

    Args:
        network: The network, in evaluation mode.
        encoding: The backbone, encoded; one row.
        tokens: The sequence.
        positions: Where; all if None. One evaluation each.
        progress: Show a progress bar on standard error.
    """
    where = torch.arange(len(tokens), device=tokens.device) if positions is None else positions
    parts = []
    bar = Progress(console=Console(stderr=True), transient=True, disable=not progress or len(where) < _BAR_FROM)
    with bar:
        task = bar.add_task("residues", total=len(where))
        trace = network.trace(tokens[None], encoding)
        for chunk in where.split(rows_at_once(len(tokens), tokens.device)):
            rows = tokens.repeat(len(chunk), 1)
            index = torch.arange(len(chunk), device=tokens.device)
            hidden = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, chunk[:, None], True)
            rows[hidden] = MASK_TOKEN
            logits = network.beside(trace, rows, encoding.repeat(len(chunk)), hidden)
            parts.append(logits[index, chunk].log_softmax(-1))
            bar.advance(task, len(chunk))
    return torch.cat(parts)


def conditional_probabilities(
    designer: Designer, encoding: Encoding, given: Sequence[GivenSequence], progress: bool = False
) -> Float32[np.ndarray, "s n 20"]:
    """The conditional probabilities of every residue of several sequences of one backbone."""
    rows = torch.from_numpy(token_rows(given)).to(designer.device)
    found = [
        conditional_log_probabilities(designer.network, encoding, row, progress=progress).exp().cpu().numpy()
        for row in rows
    ]
    return np.stack(found).astype(np.float32)


def backbone_probabilities(designer: Designer, encoding: Encoding) -> Float32[np.ndarray, "n 20"]:
    """The probabilities given the backbone alone."""
    return backbone_log_probabilities(designer.network, encoding).exp().cpu().numpy().astype(np.float32)


def confidence(conditional: Float32[np.ndarray, "n 20"], tokens: Int[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    """The conditional probability of each residue that stands in a sequence, 0..1; 0 for residues of unknown type."""
    known = tokens < len(AMINO_ACIDS)
    index = np.where(known, tokens, 0)
    return np.where(known, conditional[np.arange(len(index)), index], 0.0).astype(np.float32)


def check_npz_path(path: Path, option: str) -> None:
    """Refuses a name that numpy would change.

    Raises:
        InputError: If it does not end in .npz.
    """
    if path.suffix.lower() != ".npz":
        raise InputError(f"{option} {path}: probabilities are written as .npz; give it that ending")


def write_probabilities(
    path: Path,
    structure: Structure,
    given: Sequence[GivenSequence],
    backbone: Float32[np.ndarray, "n 20"],
    conditional: Float32[np.ndarray, "s n 20"],
) -> None:
    """Writes probabilities for `numpy.load(path)`, whole or not at all; no pickles in it.

    Keys, with n residues in the order of the structure's file and s sequences:
        alphabet [20]: the letters of the last axes. structure: its name.
        residue_ids [n] (`A52`, `H100A`), chain_ids [n], residue_numbers [n], insertion_codes [n]: the author's.
        native [n]: letters of the structure itself. names [s], sequences [s, n]: the sequences, letter by letter.
        unconditional [n, 20]: given the backbone alone, float32.
        conditional [s, n, 20]: each residue given the backbone and all other residues of its sequence, float32.

    Args:
        path: The file, ending in .npz.
        structure: The structure.
        given: The sequences.
        backbone: Probabilities given the backbone alone.
        conditional: Probabilities given all other residues, of each sequence.

    Raises:
        InputError: If the file cannot be written, or its name does not end in .npz.
    """
    check_npz_path(path, "--out")
    columns: dict[str, Any] = {
        "alphabet": np.array(list(AMINO_ACIDS)),
        "structure": np.array(structure.name),
        "residue_ids": np.array(structure.residue_ids),
        "chain_ids": np.array(structure.chain_ids),
        "residue_numbers": structure.residue_numbers,
        "insertion_codes": np.array(structure.insertion_codes),
        "native": np.array(list(structure.sequence)),
        "names": np.array([item.name for item in given]),
        "sequences": np.array([list(item.sequence) for item in given]),
        "unconditional": backbone,
        "conditional": conditional,
    }
    write_with(path, lambda aside: np.savez_compressed(aside, **columns))

"""The scores of sequences of one backbone as a table: each of the three kinds, over the designed residues and over all.

any_order, elbo, one_shot             mean negative log-likelihood, nats per designed residue: lower = more probable
any_order_all, elbo_all, one_shot_all the same over all residues
residues, residues_all                how many residues of known type each is a mean over
recovery                              share of the designed residues of known native type that equal the native
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from reed_protein.design import Designer
from reed_protein.given import GivenSequence, token_rows
from reed_protein.network import Encoding
from reed_protein.residues import UNKNOWN
from reed_protein.score import Score, score_sequences
from reed_protein.structure import Structure
from reed_protein.tables import Cell, Table

KINDS = ("any_order", "elbo", "one_shot")
COLUMNS = (
    *("record", "name", "temperature", "seed", "sample"),
    *("residues", *KINDS, "residues_all", *(f"{kind}_all" for kind in KINDS)),
    *("recovery", "sequence"),
)


def score_table(
    designer: Designer,
    structure: Structure,
    given: Sequence[GivenSequence],
    designed: Bool[np.ndarray, " l"],
    encoding: Encoding | None = None,
) -> Table:
    """Scores sequences.

    Args:
        designer: The model.
        structure: The backbone, and the native sequence.
        given: The sequences.
        designed: The designed residues; the others are seen as they stand in each sequence.
        encoding: The backbone, encoded, where the caller has it already.
    """
    rows = torch.from_numpy(token_rows(given)).to(designer.device)
    encoding = designer.encode(structure) if encoding is None else encoding
    chosen = torch.from_numpy(designed).to(designer.device)
    everything = torch.ones_like(chosen)
    over_designed = score_sequences(designer.network, encoding, rows, chosen)
    over_all = over_designed
    if not designed.all():
        over_all = score_sequences(designer.network, encoding, rows, everything)
    cells = [
        (
            *(index + 1, item.name, item.temperature, item.seed, item.sample),
            *_scores(over_designed, index),
            *_scores(over_all, index),
            *(recovery(item.sequence, structure, designed), item.sequence),
        )
        for index, item in enumerate(given)
    ]
    about = {
        "structure": structure.name,
        "chains": " ".join(structure.chains),
        "unit": "nats per residue, negative log-likelihood: lower is more probable",
    }
    return Table(COLUMNS, cells, about)


def recovery(sequence: str, structure: Structure, designed: Bool[np.ndarray, " l"]) -> float | None:
    """Share of designed residues of known native type that equal the native; None when none is known."""
    pairs = zip(sequence, structure.sequence, designed, strict=True)
    same = [letter == true for letter, true, free in pairs if free and true != UNKNOWN]
    return sum(same) / len(same) if same else None


def _scores(score: Score, index: int) -> tuple[Cell, ...]:
    def at(column: Tensor) -> float:
        return float(column[index])

    return (int(score.residues[index]), at(score.any_order), at(score.elbo), at(score.one_shot))

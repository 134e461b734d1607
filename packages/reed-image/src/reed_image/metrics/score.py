"""The Inception score: how sure a classifier is of each picture, and how varied it is over them (arXiv 1606.03498).

    IS = exp( mean over x of KL( p(y | x) || mean over x of p(y | x) ) )

It lies between 1 and the number of classes. Pictures are shuffled and cut into parts; mean and deviation are over the
parts. The score of few pictures is too low, since the mean over them leans to each.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from reed_core.errors import InputError
from torch import Tensor

SPLITS = 10


@dataclass(frozen=True)
class Score:
    """What was found.

    Attributes:
        mean: Over the parts.
        deviation: Standard deviation between them.
        splits: How many parts.
    """

    mean: float
    deviation: float
    splits: int


def inception_score(logits: Float[Tensor, "n k"], splits: int = SPLITS, seed: int = 0) -> Score:
    """The score of pictures by their logits, float64.

    Args:
        logits: Of each picture.
        splits: Parts of equal size, up to one picture.
        seed: Seeds the order: pictures that are sorted by class must not be cut by class.

    Raises:
        InputError: If there are fewer pictures than parts.
    """
    if not 1 <= splits <= len(logits):
        raise InputError(f"{splits} parts of {len(logits)} pictures; expected at least one picture in each")
    order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed)).to(logits.device)
    parts = torch.log_softmax(logits.double(), 1)[order].tensor_split(splits)
    scores = torch.stack([_score(part) for part in parts])
    return Score(float(scores.mean()), float(scores.std(correction=0)), splits)


def _score(log_p: Float[Tensor, "n k"]) -> Float[Tensor, ""]:
    mean = torch.logsumexp(log_p, 0) - torch.tensor(float(len(log_p)), dtype=log_p.dtype).log().to(log_p.device)
    divergence = log_p.exp() * (log_p - mean)
    return divergence.sum(1).mean().exp()

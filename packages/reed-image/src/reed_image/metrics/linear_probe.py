"""A linear classifier on features that are not its own: what of the class they tell.

Logistic regression on standardised features, W and b minimising over the rows it is fitted to

    mean of -log p(class | h) + penalty / 2 * |W|^2,      p = softmax(W h + b)

by L-BFGS in float64. A fifth of the rows is kept for the figure, and looked at once; of the others a fifth chooses the
penalty, and then the classifier is fitted to all of those.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from reed_core.errors import InputError
from torch import Tensor
from torch.nn import functional as F

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_STEPS, _TOLERANCE = 60, 1e-7


@dataclass(frozen=True)
class LinearProbe:
    """What a linear classifier tells.

    Attributes:
        accuracy: Share of rows not seen in fitting that it names.
        error: Its standard error.
        chance: The share that the commonest class of the others would have named.
        penalty: The penalty that was chosen.
        tested: Rows of the figure.
    """

    accuracy: float
    error: float
    chance: float
    penalty: float
    tested: int


def linear_probe(features: Float[Tensor, "n d"], labels: Int[Tensor, "n"], seed: int = 0) -> LinearProbe:
    """Classifies rows by their features.

    Args:
        features: Features.
        labels: Class of each row, 0 or more.
        seed: Seeds which rows are kept apart.

    Raises:
        InputError: If there are fewer than ten rows, or fewer than two classes.
    """
    classes, labels = torch.unique(labels.cpu(), return_inverse=True)
    if len(features) < 10 or len(classes) < 2:
        raise InputError(
            f"{len(features)} pictures of {len(classes)} classes; a linear probe needs ten and two, each with its class"
        )
    features = features.double().cpu()
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    fifth = len(order) // 5
    tested, fitted = order[:fifth], order[fifth:]
    choosing, trying = fitted[: len(fitted) // 5], fitted[len(fitted) // 5 :]
    count = len(classes)

    def right(rows: Tensor, judged: Tensor, penalty: float) -> float:
        mean, scale = features[rows].mean(0), features[rows].std(0).clamp(min=1e-12)
        weight, bias = _fit((features[rows] - mean) / scale, labels[rows], count, penalty)
        said = ((features[judged] - mean) / scale) @ weight + bias
        return float((said.argmax(1) == labels[judged]).double().mean())

    penalty = max(PENALTIES, key=lambda one: (right(trying, choosing, one), one))
    accuracy = right(fitted, tested, penalty)
    common = torch.bincount(labels[fitted], minlength=count).argmax()
    chance = float((labels[tested] == common).double().mean())
    return LinearProbe(accuracy, math.sqrt(accuracy * (1 - accuracy) / fifth), chance, penalty, fifth)


def _fit(x: Float[Tensor, "n d"], labels: Int[Tensor, "n"], classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=_STEPS, tolerance_grad=_TOLERANCE, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight + bias, labels) + 0.5 * penalty * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    return weight.detach(), bias.detach()

"""A linear probe: what of z can be read from hidden states by a linear map, judged on samples it has not seen.

Ridge regression of u = z / |z| on standardised hidden states X, with a constant. Samples are split into folds (all
rows of a sample in one), each fold is predicted from the others, and the penalty l minimises, on the others,

    GCV(l) = |Y - Y_l|^2 / (1 - df(l) / r)^2,   df(l) = 1 + sum_i s_i / (s_i + l),   s_i the eigenvalues of X'X

(Golub, Heath and Wahba, 1979). The mean cosine of prediction and u on unseen samples is, on average, a lower bound of
the attainable cosine. Beside it stands the cosine of a constant prediction: only the excess over it is information.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from reed_core.errors import InputError

_PENALTIES = torch.logspace(-6, 2, 17, dtype=torch.float64)  # relative to the mean eigenvalue


@dataclass(frozen=True)
class Probe:
    """What a linear probe reads.

    Attributes:
        cosine: Mean cosine with z on unseen samples.
        error: Its standard error over samples.
        constant: Mean cosine of the same folds when hidden states are not looked at.
    """

    cosine: float
    error: float
    constant: float


def probe(
    hidden: Float[Tensor, "r w"], z: Float[Tensor, "r d"], sample: Int[Tensor, "r"] | None = None, folds: int = 5
) -> Probe:
    """Reads z from hidden states by cross-validated ridge regression.

    Args:
        hidden: Hidden states.
        z: Representations.
        sample: The sample of each row; None: every row is a sample of its own.
        folds: Number of folds.

    Raises:
        InputError: If there are fewer samples than folds, or fewer than two folds.
    """
    hidden, u = hidden.double(), F.normalize(z.double(), dim=-1)
    number = torch.arange(len(u)) if sample is None else torch.unique(sample, return_inverse=True)[1]
    count = int(number.max()) + 1 if len(number) else 0
    if folds < 2 or count < folds:
        raise InputError(f"{folds} folds of {count} samples; give two folds or more, and a sample for each")
    told, blind = torch.zeros(len(u), dtype=torch.float64), torch.zeros(len(u), dtype=torch.float64)
    for fold in range(folds):
        out = number % folds == fold
        mean = u[~out].mean(0)
        predicted = mean + _ridge(hidden[~out], u[~out] - mean, hidden[out])
        told[out] = F.cosine_similarity(predicted, u[out], dim=-1)
        blind[out] = F.normalize(mean, dim=0) @ u[out].T
    per_sample = _by_sample(told, number, count)
    return Probe(
        per_sample.mean().item(), (per_sample.std() / count**0.5).item(), _by_sample(blind, number, count).mean().item()
    )


def _ridge(x: Float[Tensor, "r w"], y: Float[Tensor, "r d"], x_new: Float[Tensor, "q w"]) -> Float[Tensor, "q d"]:
    """Predicts centred y at new places; the penalty is chosen by generalised cross-validation."""
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-12)
    x, x_new = (x - mean) / scale, (x_new - mean) / scale
    values, vectors = torch.linalg.eigh(x.T @ x)
    values = values.clamp(min=0.0)
    across = vectors.T @ (x.T @ y)
    solid = values > 1e-10 * values.max().clamp(min=1e-300)
    energy = torch.where(solid, across.square().sum(1) / torch.where(solid, values, 1.0), 0.0)
    penalty = (_PENALTIES * values.mean().clamp(min=1e-300))[:, None]
    kept = penalty / (values + penalty)
    residual = y.square().sum() - energy.sum() + (energy * kept.square()).sum(1)
    freedom = (1.0 - (1.0 + (1.0 - kept).sum(1)) / len(x)).clamp(min=1e-3)
    best = penalty[(residual.clamp(min=0.0) / freedom.square()).argmin()]
    return x_new @ (vectors @ (across / (values + best)[:, None]))


def _by_sample(values: Float[Tensor, "r"], number: Int[Tensor, "r"], count: int) -> Float[Tensor, "s"]:
    total = torch.zeros(count, dtype=values.dtype).index_add(0, number, values)
    return total / torch.bincount(number, minlength=count)

"""How alike two sets of features of the same samples are, whatever their widths: linear CKA and CKNNA.

With K = A A' and L = B B' (rows are samples, n of them):

    CKA(A, B)    = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))                               (arXiv 1905.00414, eq. 2-3)
    HSIC_0(K, L) = tr(K H L H) / (n - 1)^2,   H = I - 11'/n                               biased
    HSIC_1(K, L) = [tr(K~ L~) + 1'K~1 1'L~1 / ((n-1)(n-2)) - 2/(n-2) 1'K~L~1] / (n (n-3)) unbiased: K~ has a zero
                   diagonal (Song et al., JMLR 13, 2012, eq. 5)

    CKNNA_k(A, B) = S(K, L) / sqrt(S(K, K) S(L, L)),                                      (arXiv 2405.07987, appendix A)
    S(K, L) = sum_ij m_ij (K_ij - mean_l K_il)(L_ij - mean_l L_il),
    m_ij = 1 if i != j and j is among the k nearest neighbours of i in A and in B, by inner product.

The released code of that paper, and figures made with it, take instead S(K, L) = HSIC_1 of the masked kernels m * K and
m * L: `unbiased=True` here, made symmetric in A and B. Biased CKA of wide random features is far above 0 (it tends to 1
as the widths grow past n): use the debiased one to compare depths.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reed_core.errors import InputError


def hsic(K: Float[Tensor, "n n"], L: Float[Tensor, "n n"], unbiased: bool = True) -> Float[Tensor, ""]:
    """The Hilbert-Schmidt independence criterion of two kernels, float64.

    Args:
        K: Kernel of the first features; it need not be symmetric.
        L: Kernel of the second.
        unbiased: HSIC_1 (at least 4 samples) or HSIC_0.
    """
    K, L = K.double(), L.double()
    n = len(K)
    if not unbiased:
        return (_centred(K) * _centred(L).T).sum() / (n - 1) ** 2
    K, L = _hollow(K), _hollow(L)
    crossed = 0.5 * (K.sum(0) @ L.sum(1) + L.sum(0) @ K.sum(1))
    total = (K * L.T).sum() + K.sum() * L.sum() / ((n - 1) * (n - 2)) - 2.0 * crossed / (n - 2)
    return total / (n * (n - 3))


def cka(a: Float[Tensor, "n d"], b: Float[Tensor, "m k"], debiased: bool = False) -> float:
    """Linear centred kernel alignment; 1 for features equal up to rotation, scale and shift.

    Args:
        a: Features of n samples.
        b: Other features of the same samples.
        debiased: Use the unbiased HSIC: about 0 for unrelated features (it can fall below), needs n >= 4.

    Raises:
        InputError: If the numbers of samples differ or are too small.
    """
    _check(a, b, 4 if debiased else 2)
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    K, L = a @ a.T, b @ b.T
    return _ratio(hsic(K, L, debiased), hsic(K, K, debiased), hsic(L, L, debiased))


def cknna(a: Float[Tensor, "n d"], b: Float[Tensor, "m k"], k: int = 10, unbiased: bool = False) -> float:
    """Alignment of the pairs that are near neighbours in both features; about k / n for unrelated ones.

    Neighbours are by inner product, so a mean common to all rows, or rows of very different length, decides them: give
    rows of unit length (`unit_rows`), as the published figures do. Features that are equal up to rotation and scale
    score 1; it is symmetric in a and b.

    Args:
        a: Features of n samples.
        b: Other features of the same samples.
        k: Number of neighbours, 2 <= k < n; published figures have k = 10.
        unbiased: Use HSIC_1 of the masked kernels, as the released code does; else the paper's definition.

    Raises:
        InputError: If the numbers of samples differ or are too small, or k is not in its range.
    """
    _check(a, b, 4)
    if not 2 <= k < len(a):
        raise InputError(f"{k} neighbours of {len(a)} samples; choose 2 or more, and fewer than the samples")
    a, b = a.double(), b.double()
    K, L = a @ a.T, b @ b.T
    near_a, near_b = _neighbours(K, k), _neighbours(L, k)
    return _ratio(
        _local(K, L, near_a & near_b, unbiased), _local(K, K, near_a, unbiased), _local(L, L, near_b, unbiased)
    )


def unit_rows(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows less their mean, of unit length, float64: what `cknna` compares best.

    A residual stream has a large mean common to all samples; without this, neighbours are decided by it alone.
    """
    x = x.double() - x.double().mean(0)
    return torch.nn.functional.normalize(x, dim=-1)


def _local(K: Tensor, L: Tensor, near: Bool[Tensor, "n n"], unbiased: bool) -> Tensor:
    if unbiased:
        return hsic(near * K, near * L)
    K, L = (kernel - kernel.mean(1, keepdim=True) for kernel in (K, L))
    return (near * K * L).sum()


def _neighbours(K: Float[Tensor, "n n"], k: int) -> Bool[Tensor, "n n"]:
    others = K.clone().fill_diagonal_(-torch.inf)
    return torch.zeros_like(K, dtype=torch.bool).scatter_(1, others.topk(k, 1).indices, True)


def _centred(K: Tensor) -> Tensor:
    return K - K.mean(0) - K.mean(1, keepdim=True) + K.mean()


def _hollow(K: Tensor) -> Tensor:
    return K.clone().fill_diagonal_(0.0)


def _ratio(across: Tensor, first: Tensor, second: Tensor) -> float:
    """Across over the geometric mean; NaN when one of the features does not vary."""
    product = first.item() * second.item()
    return across.item() / product**0.5 if first > 0 and product > 0 else float("nan")


def _check(a: Tensor, b: Tensor, least: int) -> None:
    if len(a) != len(b) or len(a) < least:
        raise InputError(f"features of {len(a)} and {len(b)} samples; expected as many of both, {least} or more")

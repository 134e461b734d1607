"""The hybrid of an unconditional and a conditional prediction: what a sampler runs when z is revealed with survival A.

    p~ = p_u^{1-A} p_c^A / Z      has      score~ = (1 - A) score_u + A score_c            (THEORY D6)

eps, x_0 and v are affine in the score with coefficients of x_t and t alone, so they mix alike (THEORY D16). Token
logits mix to p~ conditioned on unmasking: log p~(x_0 | x_t) = (1 - A) l_u + A l_c + const (THEORY section 6).

A = 0 ignores z, A = 1 is fully conditional, and A > 1 extrapolates (classifier-free guidance). Running p~ with z drawn
up front is biased unless A = 1 (THEORY D13).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def mix_predictions(
    unconditional: Float[Tensor, "*shape"],
    conditional: Float[Tensor, "*shape"],
    A: Float[Tensor, "..."] | float,
) -> Float[Tensor, "*shape"]:
    """(1 - A) e_u + A e_c, for scores, eps-, x_0- or v-predictions (THEORY D6, D16).

    Args:
        unconditional: e_u, any shape.
        conditional: e_c, the same shape.
        A: Survival A(t), a number or a tensor whose axes are the first axes of the predictions ([b], [b, n], ...).
    """
    weight = leading(A, unconditional)
    return (1.0 - weight) * unconditional + weight * conditional


def mix_many(predictions: Float[Tensor, "*shape S"], weights: Float[Tensor, "*w S"]) -> Float[Tensor, "*shape"]:
    """sum_S w(S) e_S: what `mix_predictions` is for several latents (THEORY section 2, D6, D16).

    For latents that are conditionally independent given x_t the scores mix to grad log p(x_t) + sum_l A^l grad
    log p(z_l|x_t), whatever the coupling: only the A^l matter.

    Args:
        predictions: e_S of every revealed set S, on the last axis.
        weights: w(S), summing to 1; the other axes are the first axes of the predictions.
    """
    aligned = weights.reshape(weights.shape[:-1] + (1,) * (predictions.ndim - weights.ndim) + weights.shape[-1:])
    return (aligned.to(predictions) * predictions).sum(-1)


def mix_logits(
    unconditional: Float[Tensor, "*b k"],
    conditional: Float[Tensor, "*b k"],
    A: Float[Tensor, "..."] | float,
) -> Float[Tensor, "*b k"]:
    """Log-probabilities of softmax((1 - A) l_u + A l_c), for token logits (THEORY section 6).

    A logit of -inf forbids a token for the side that has a non-zero weight, and only then: p^0 = 1.

    Args:
        unconditional: l_u, over k tokens on the last axis; need not be normalised.
        conditional: l_c, the same shape.
        A: Survival A(t), a number or a tensor whose axes are the first axes of the logits ([b], [b, n], ...).
    """
    weight = leading(A, unconditional)
    return torch.log_softmax(power(unconditional, 1.0 - weight) + power(conditional, weight), dim=-1)


def power(log_p: Float[Tensor, "*shape"], exponent: Float[Tensor, "..."]) -> Float[Tensor, "*shape"]:
    """The logarithm of p^w, w log p, with 0^0 = 1."""
    return torch.where(exponent == 0, torch.zeros_like(log_p), exponent * log_p)


def leading(A: Float[Tensor, "..."] | float, like: Float[Tensor, "*shape"]) -> Tensor:
    """A as a tensor of the dtype, device and rank of `like`, its axes aligned with the first axes of `like`.

    Args:
        A: A number or a tensor.
        like: What it will be multiplied with.
    """
    weight = torch.as_tensor(A, dtype=like.dtype, device=like.device)
    return weight.reshape(weight.shape + (1,) * (like.ndim - weight.ndim))

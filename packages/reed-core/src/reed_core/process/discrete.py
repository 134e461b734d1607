"""Uniform diffusion, for discrete x: a token that is not kept becomes a uniform draw over all K tokens.

    k(t) = 1 - t,   q_t(j | x_0) = k(t) [j = x_0] + t / K       a(t) = q_t(x_0 | x_0) = k + t / K,   b(t) = t / K

Rates. Over dt a token is redrawn with probability -k'/k dt = dt / (1 - t), so the forward rate i -> j != i is
1 / (K (1 - t)), and by Bayes' rule the reverse rate i -> j of q(. | x_0) is
    r_j = rho_j / (K (1 - t)),   rho_j = q_t(j | x_0) / q_t(i | x_0)
A prediction p(x_0 | x_t) implies the average of these over x_0 (arXiv 2111.14005; exact at the exact posterior):
    r_hat_j = rho_hat_j / (K (1 - t)),   rho_hat_j = sum_{x_0} p(x_0) q_t(j | x_0) / q_t(i | x_0)
                                                   = b/a + (1 - t) [(1 - p(i)) / a + p(j) / b]
Bound. Over dt both kernels jump to j with probability r dt and stay with 1 - sum_j r dt, so KL(q || p) / dt tends to
that of Poisson processes (arXiv 2205.14987), with delta_j = log(rho_hat_j / rho_j):
    nats(t) = sum_{j != i} [r_hat_j - r_j + r_j log(r_j / r_hat_j)] = sum_{j != i} r_j (exp(delta_j) - 1 - delta_j)
which is finite for every prediction, as rho_hat >= b/a, and goes to 0 with 1 - t, as delta does.
Prior: KL(q_{t_max} || uniform). Reconstruction: the last step, from t_min to 0, is a draw of p(x_0 | x_t).

Hybrid p~ = p_u^{1-A} p_c^A / Z. Over dt the weight of a jump is m_j dt, m_j = r_u^{1-A} r_c^A, that of staying is
1 - [(1-A) sum r_u + A sum r_c] dt, so p~ has the rates m_j, KL(q || p~) the nats of m, and
    log Z rate = sum_j m_j - (1-A) sum_j r_u - A sum_j r_c <= 0 (arithmetic and geometric mean)   (THEORY D14)

Step. q(x_s = j | x_t = i, x_0) = q(x_t = i | x_s = j) q_s(j | x_0) / q_t(i | x_0), mixed over p(x_0), is with
kappa = (1 - t) / (1 - s) and g(x_0) = p(x_0) / q_t(i | x_0)
    p(x_s = j | x_t = i) = (kappa [i = j] + (1 - kappa) / K) ((1 - s) g(j) + s / K sum_{x_0} g(x_0))
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import (
    Corrupted,
    HybridNats,
    check_possible,
    draw_elements,
    expand_mask,
    expand_time,
    masked_mean,
    masked_sum,
)


@dataclass(frozen=True)
class UniformDiscrete:
    """Uniform-state diffusion over tokens 0..num_tokens-1. A denoiser predicts logits of x_0 for every token.

    Attributes:
        num_tokens: K >= 2.
        time_weight: What `loss` is per token: "elbo", the nats of the bound, or "flat", plain cross-entropy of x_0, a
            surrogate of smaller variance with the same minimiser.
        t_min: Smallest training and sampling time (rates grow as 1/t).
        t_max: Largest training and sampling time.
    """

    num_tokens: int
    time_weight: Literal["elbo", "flat"] = "elbo"
    t_min: float = 1e-3
    t_max: float = 1.0

    def __post_init__(self) -> None:
        if self.num_tokens < 2:
            raise InputError(f"expected at least 2 tokens, got {self.num_tokens}")
        if self.time_weight not in ("elbo", "flat"):
            raise InputError(f"time_weight '{self.time_weight}' is unknown; expected elbo or flat")
        if not 0.0 < self.t_min < self.t_max <= 1.0:
            raise InputError(f"times run over 0 < t_min < t_max <= 1, got {self.t_min:g} and {self.t_max:g}")

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Uniform times on [t_min, t_max)."""
        return self.t_min + (self.t_max - self.t_min) * noise.times()

    def corrupt(
        self,
        x_0: Int[Tensor, "b ..."],
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b ..."] | None = None,
    ) -> Corrupted:
        """Replaces each token with probability t by a uniform draw over all tokens, itself included.

        Args:
            x_0: Tokens, [b, ...].
            t: Times, [b].
            noise: One stream per sample.
            mask: True where a token exists, with leading axes of x_0; elsewhere x_0 is left as it is, never scored.
        """
        tokens = self._uniform(x_0, noise, mask)
        drawn = draw_elements(noise.uniform, x_0.shape[1:], mask)
        fresh = (drawn < expand_time(t.cpu(), drawn)).to(x_0.device)  # float64 stays on the CPU
        if mask is not None:
            fresh = fresh & expand_mask(mask, fresh)
        x_t = torch.where(fresh, tokens, x_0)
        return Corrupted(x_0=x_0, x_t=x_t, t=t, target=x_0, mask=mask)

    def loss(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Nats of the bound, or cross-entropy, per existing token, for each sample."""
        if self.time_weight == "flat":
            return masked_mean(self.token_nll(prediction, corrupted), corrupted.mask)
        return masked_mean(self._token_nats(self._log_ratio(prediction, corrupted), corrupted), corrupted.mask)

    def token_nll(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b ..."]:
        """Cross-entropy of each clean token, in float32 or wider; meaningless outside the mask."""
        log_p = self._log_softmax(prediction)
        return -log_p.gather(-1, self._index(corrupted.target))[..., 0]

    def prior(
        self, like: Int[Tensor, "b ..."], noise: NoiseSource, mask: Bool[Tensor, "b ..."] | None = None
    ) -> Int[Tensor, "b ..."]:
        """Uniform tokens."""
        return self._uniform(like, noise, mask)

    def step(
        self,
        prediction: Float[Tensor, "b ... k"],
        x_t: Int[Tensor, "b ..."],
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b ..."] | None = None,
    ) -> Int[Tensor, "b ..."]:
        """One draw of sum_{x_0} p(x_0 | x_t) q(x_s | x_t, x_0), token by token; s = 0 gives a draw of the prediction.

        Args:
            prediction: Logits at t.
            x_t: Tokens at t.
            t: Times, [b], in (0, 1].
            s: Times to go to, [b], 0 <= s < t.
            noise: One stream per sample.
            mask: True where a token exists; others are left alone.

        Raises:
            InputError: If all logits of a token are -inf, or one is not a number.
        """
        exists = torch.ones_like(x_t, dtype=torch.bool) if mask is None else expand_mask(mask, x_t).expand_as(x_t)
        check_possible(prediction, exists)
        gumbel = draw_elements(noise.gumbel, (*x_t.shape[1:], self.num_tokens), mask)
        log_probs = self.step_log_probs(prediction, x_t, t, s)
        token = (log_probs + gumbel.to(log_probs)).argmax(-1)
        return torch.where(exists, token.to(x_t.dtype), x_t)

    def step_log_probs(
        self,
        prediction: Float[Tensor, "b ... k"],
        x_t: Int[Tensor, "b ..."],
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
    ) -> Float[Tensor, "b ... k"]:
        """The logarithm of the kernel that `step` draws from."""
        p = self._log_softmax(prediction).exp()
        now, after = expand_time(t.to(p), p), expand_time(s.to(p), p)
        here = torch.zeros_like(p).scatter(-1, self._index(x_t), 1.0)
        g = p / ((1.0 - now) * here + now / self.num_tokens)
        kept = (1.0 - now) / (1.0 - after)
        stay = kept * here + (now - after) / (1.0 - after) / self.num_tokens
        return (stay * ((1.0 - after) * g + after / self.num_tokens * g.sum(-1, keepdim=True))).log()

    def prior_nats(self, x_0: Int[Tensor, "b ..."], mask: Bool[Tensor, "b ..."] | None = None) -> Float[Tensor, "b"]:
        """KL(q(x_{t_max} | x_0) || uniform), summed over a sample's tokens."""
        k, t = self.num_tokens, self.t_max
        kept = 1.0 + (k - 1) * (1.0 - t)  # K a(t); K b(t) = t
        per_token = (kept * math.log(kept) + (k - 1) * t * math.log(t)) / k
        return masked_sum(torch.full(x_0.shape, per_token, device=x_0.device), mask)

    def nats(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """sum_j [r_hat_j - r_j + r_j log(r_j / r_hat_j)], per unit of time, whatever `time_weight` is."""
        return masked_sum(self._token_nats(self._log_ratio(prediction, corrupted), corrupted), corrupted.mask)

    def hybrid_nats(
        self,
        unconditional: Float[Tensor, "b ... k"],
        conditional: Float[Tensor, "b ... k"],
        A: Float[Tensor, "b"],
        corrupted: Corrupted,
    ) -> HybridNats:
        """KL(q || p~) and log Z of the hybrid of both rates, per unit of time; derived in the module docstring.

        Args:
            unconditional: Logits l_u.
            conditional: Logits l_c.
            A: Survival of each sample, [b], in [0, 1].
            corrupted: The corruption that both saw.
        """
        without, given = (self._log_ratio(side, corrupted) for side in (unconditional, conditional))
        weight = expand_time(A.to(without), without)
        mixed = (1.0 - weight) * without + weight * given
        rate = self._rates(corrupted, mixed)
        change = torch.expm1(mixed) - (1.0 - weight) * torch.expm1(without) - weight * torch.expm1(given)
        normaliser = masked_sum((rate * change).sum(-1).clamp(max=0), corrupted.mask)
        return HybridNats(masked_sum(self._token_nats(mixed, corrupted), corrupted.mask), normaliser)

    def reconstruction_nats(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The summed cross-entropy of every token at t_min: the last step is a draw of the prediction."""
        return masked_sum(self.token_nll(prediction, corrupted), corrupted.mask)

    def _uniform(self, like: Tensor, noise: NoiseSource, mask: Tensor | None) -> Tensor:
        drawn = draw_elements(noise.uniform, like.shape[1:], mask)
        return (drawn * self.num_tokens).long().to(like.device, like.dtype)

    def _index(self, tokens: Tensor) -> Tensor:
        """Tokens as an index of the last axis; what padding holds is brought into range."""
        return tokens.clamp(0, self.num_tokens - 1).long()[..., None]

    def _log_softmax(self, prediction: Tensor) -> Tensor:
        return prediction.to(torch.promote_types(prediction.dtype, torch.float32)).log_softmax(-1)

    def _log_ratio(self, prediction: Tensor, corrupted: Corrupted) -> Tensor:
        """delta_j = log(rho_hat_j / rho_j) of every jump j, 0 at j = i; rho_hat is a sum of positive terms."""
        log_p = self._log_softmax(prediction)
        t = expand_time(corrupted.t.to(log_p), log_p)
        b = t / self.num_tokens
        a = 1.0 - t + b
        here = self._index(corrupted.x_t)
        rho_hat = b / a + (1.0 - t) * (log_p.exp() / b - torch.expm1(log_p.gather(-1, here)) / a)
        return (rho_hat.log() - self._rho(corrupted, log_p).log()).scatter(-1, here, 0.0)

    def _rho(self, corrupted: Corrupted, like: Tensor) -> Tensor:
        """q_t(j | x_0) / q_t(i | x_0) for every j (1 at j = i)."""
        t = expand_time(corrupted.t.to(like), like)
        here, clean = self._index(corrupted.x_t), self._index(corrupted.x_0)
        q = (t / self.num_tokens).expand_as(like).scatter_add(-1, clean, (1.0 - t).expand_as(like)[..., :1])
        return q / q.gather(-1, here)

    def _rates(self, corrupted: Corrupted, like: Tensor) -> Tensor:
        """r_j; finite at t = 1, where everything it multiplies is 0."""
        left = expand_time((1.0 - corrupted.t.to(like)).clamp(min=torch.finfo(like.dtype).tiny), like)
        return self._rho(corrupted, like) / (self.num_tokens * left)

    def _token_nats(self, log_ratio: Tensor, corrupted: Corrupted) -> Tensor:
        """The Poisson divergence of rates r exp(log_ratio) from r, for each token."""
        return (self._rates(corrupted, log_ratio) * (torch.expm1(log_ratio) - log_ratio)).sum(-1)

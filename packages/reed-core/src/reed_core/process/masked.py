"""Masked (absorbing) diffusion, for discrete x.

    keep probability k(t) = 1 - t: each token is replaced by the mask token with probability t; t = 1 is all masked.
    reverse from t to s < t: a masked token is revealed with probability (t - s) / t, as a draw of the denoiser's
    categorical distribution; a revealed token stays (carry-over).

Continuous-time bound (MDLM, arXiv 2406.07524, eq. 10; THEORY section 6), with -k'(t) / (1 - k(t)) = 1 / t:
    nats = E_t [ 1/t  sum over masked tokens of CE ]
The prior costs nothing (t_max = 1), the last step from t_min to 0 costs the cross-entropy of what is hidden at t_min.
`time_weight="elbo"` trains on it per token; "flat" leaves out 1/t and multiplies by 2 (1 / E[t]), a surrogate of
smaller variance that counts every masked token alike.

Hybrid p~ = p_u^{1-A} p_c^A / Z of one hidden token x over a step, with r = (t - s) / t and m_k = p_u(k)^{1-A} p_c(k)^A:
the kernel stays masked with weight 1 - r and reveals k with weight r m_k, so with zeta = sum_k m_k,
    log Z = log(1 - r (1 - zeta)),   KL(q || p~) = -r log m_x + log Z
and, as r -> 0, per unit of time (each at most / at least 0, since m_x <= zeta <= 1)
    log Z rate = -(1 - zeta) / t,   KL rate = (-log m_x - (1 - zeta)) / t                        (THEORY D14)
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import (
    Corrupted,
    HybridNats,
    check_possible,
    draw_elements,
    expand_mask,
    expand_time,
    log_mix,
    masked_sum,
)


@dataclass(frozen=True)
class Masked:
    """Absorbing-state diffusion over tokens 0..num_tokens-1.

    Attributes:
        num_tokens: Number of tokens that a denoiser can predict (the width of its logits).
        mask_token: The index of the mask token, outside 0..num_tokens-1.
        time_weight: "elbo" (1/t) or "flat".
        t_min: Smallest training time (1/t has to stay finite).
    """

    num_tokens: int
    mask_token: int
    time_weight: Literal["elbo", "flat"] = "elbo"
    t_min: float = 1e-3

    def __post_init__(self) -> None:
        if 0 <= self.mask_token < self.num_tokens:
            raise InputError(f"mask_token {self.mask_token} is one of the {self.num_tokens} data tokens; give another")
        if self.time_weight not in ("elbo", "flat"):
            raise InputError(f"time_weight '{self.time_weight}' is unknown; expected elbo or flat")
        if not 0.0 < self.t_min < 1.0:
            raise InputError(f"t_min lies between 0 and 1, got {self.t_min:g}")

    @property
    def t_max(self) -> float:
        """Largest training and sampling time: 1, where everything is masked."""
        return 1.0

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Uniform times on [t_min, 1)."""
        return self.t_min + (1.0 - self.t_min) * noise.times()

    def corrupt(
        self,
        x_0: Int[Tensor, "b ..."],
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b ..."] | None = None,
    ) -> Corrupted:
        """Masks each token with probability t.

        Args:
            x_0: Tokens, [b, ...].
            t: Times, [b].
            noise: One stream per sample.
            mask: True where a token exists and may be masked, with leading axes of x_0; elsewhere x_0 is left as it is
                and never scored.
        """
        drawn = draw_elements(noise.uniform, x_0.shape[1:], mask)
        hidden = (drawn < expand_time(t.cpu(), drawn)).to(x_0.device)  # float64 stays on the CPU
        if mask is not None:
            hidden = hidden & expand_mask(mask, hidden)
        x_t = torch.where(hidden, self.mask_token, x_0)
        return Corrupted(x_0=x_0, x_t=x_t, t=t, target=x_0, mask=mask, scored=hidden)

    def loss(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Weighted cross-entropy of the hidden tokens per existing token, in nats, for each sample."""
        nll = self.token_nll(prediction, corrupted)
        total = masked_sum(nll, None)
        if corrupted.mask is None:
            length = torch.full_like(total, math.prod(nll.shape[1:]))
        else:
            exists = expand_mask(corrupted.mask, nll).expand_as(nll)
            length = exists.flatten(1).sum(1) if nll.ndim > 1 else exists.long()
        per_token = total / length.clamp(min=1)
        weight = self.elbo_weight(corrupted.t) if self.time_weight == "elbo" else torch.full_like(corrupted.t, 2.0)
        return per_token * weight.to(per_token)

    def token_nll(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b ..."]:
        """Cross-entropy of each hidden token, 0 where nothing is hidden, in float32 or wider."""
        logits = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target = corrupted.target.clamp(0, self.num_tokens - 1)
        nll = F.cross_entropy(logits.flatten(0, -2), target.flatten(), reduction="none").view_as(target)
        return nll if corrupted.scored is None else torch.where(corrupted.scored, nll, torch.zeros_like(nll))

    def elbo_weight(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """-k'(t) / (1 - k(t)) = 1 / t: nats per unit of summed cross-entropy of hidden tokens."""
        return 1.0 / t

    def prior(
        self, like: Int[Tensor, "b ..."], noise: NoiseSource, mask: Bool[Tensor, "b ..."] | None = None
    ) -> Int[Tensor, "b ..."]:
        """All tokens masked."""
        return torch.full_like(like, self.mask_token)

    def reveal_probability(self, t: float, s: float) -> float:
        """Probability that a token masked at t > 0 is revealed by s < t: (k(s) - k(t)) / (1 - k(t)) = (t - s) / t."""
        return (t - s) / t

    def step(
        self,
        prediction: Float[Tensor, "b ... k"],
        x_t: Int[Tensor, "b ..."],
        t: Float[Tensor, "b"],
        s: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b ..."] | None = None,
    ) -> Int[Tensor, "b ..."]:
        """Reveals each masked token with probability (t - s) / t, as a draw of softmax(prediction); the rest stays.

        Args:
            prediction: Logits at t.
            x_t: Tokens at t.
            t: Times, [b], in (0, 1].
            s: Times to go to, [b], 0 <= s < t; at 0 every token is revealed.
            noise: One stream per sample.
            mask: True where a token exists; others are left alone.

        Raises:
            InputError: If all logits of a masked token are -inf, or one is not a number.
        """
        hidden = x_t == self.mask_token
        if mask is not None:
            hidden = hidden & expand_mask(mask, hidden)
        logits = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        check_possible(logits, hidden)
        drawn = draw_elements(noise.uniform, x_t.shape[1:], mask)
        due = (drawn < expand_time(((t - s) / t).cpu(), drawn)).to(x_t.device)
        gumbel = draw_elements(noise.gumbel, (*x_t.shape[1:], self.num_tokens), mask)
        token = (logits + gumbel.to(logits)).argmax(-1)
        return torch.where(hidden & due, token.to(x_t.dtype), x_t)

    def prior_nats(self, x_0: Int[Tensor, "b ..."], mask: Bool[Tensor, "b ..."] | None = None) -> Float[Tensor, "b"]:
        """0: at t_max = 1 everything is masked, whatever x_0 is."""
        return torch.zeros(x_0.shape[0], device=x_0.device)

    def nats(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """1/t times the summed cross-entropy of the hidden tokens, per unit of time, whatever `time_weight` is."""
        total = masked_sum(self.token_nll(prediction, corrupted), None)
        return total * self.elbo_weight(corrupted.t.to(total))

    def hybrid_nats(
        self,
        unconditional: Float[Tensor, "b ... k"],
        conditional: Float[Tensor, "b ... k"],
        A: Float[Tensor, "b"],
        corrupted: Corrupted,
    ) -> HybridNats:
        """KL(q || p~) and log Z of the hybrid kernel, per unit of time; derived in the module docstring.

        Args:
            unconditional: Logits l_u.
            conditional: Logits l_c.
            A: Survival of each sample, [b], in [0, 1].
            corrupted: The corruption that both saw.
        """
        dtype = torch.promote_types(torch.promote_types(unconditional.dtype, conditional.dtype), torch.float32)
        log_m = log_mix(unconditional.to(dtype).log_softmax(-1), conditional.to(dtype).log_softmax(-1), A)
        target = corrupted.target.clamp(0, self.num_tokens - 1).long()
        nll = -log_m.gather(-1, target[..., None])[..., 0]
        lost = -torch.expm1(log_m.logsumexp(-1)).clamp(max=0)
        weight = self.elbo_weight(corrupted.t.to(dtype))
        normaliser = -weight * masked_sum(lost, corrupted.scored)
        return HybridNats(weight * masked_sum(nll, corrupted.scored) + normaliser, normaliser)

    def reconstruction_nats(self, prediction: Float[Tensor, "b ... k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """The summed cross-entropy of the tokens hidden at t_min, all of which the last step reveals."""
        return masked_sum(self.token_nll(prediction, corrupted), None)

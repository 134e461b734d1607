"""Masked (absorbing) diffusion, for discrete x.

    keep probability k(t) = 1 - t: each token is replaced by the mask token with probability t; t = 1 is all masked.
    reverse from t to s < t: a masked token is revealed with probability (t - s) / t, as a draw of the denoiser's
    categorical distribution; a revealed token stays (carry-over).

Continuous-time bound (MDLM, arXiv 2406.07524, eq. 10; THEORY section 6), with -k'(t) / (1 - k(t)) = 1 / t:
    nats = E_t [ 1/t  sum over masked tokens of CE ]
`time_weight="elbo"` trains on it per token; "flat" leaves out 1/t and multiplies by 2 (1 / E[t]), a surrogate of
smaller variance that counts every masked token alike.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import Corrupted


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

    def sample_time(self, noise: NoiseSource) -> Float[Tensor, "b"]:
        """Uniform times on [t_min, 1)."""
        return self.t_min + (1.0 - self.t_min) * noise.times()

    def corrupt(
        self,
        x_0: Int[Tensor, "b n"],
        t: Float[Tensor, "b"],
        noise: NoiseSource,
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Corrupted:
        """Masks each token with probability t.

        Args:
            x_0: Tokens, [b, n].
            t: Times, [b].
            noise: One stream per sample.
            mask: True where a token exists and may be masked; elsewhere x_0 is left as it is and never scored.
        """
        hidden = (noise.uniform(x_0.shape[1:]) < t.cpu()[:, None]).to(x_0.device)  # float64 stays on the CPU
        if mask is not None:
            hidden = hidden & mask
        x_t = torch.where(hidden, self.mask_token, x_0)
        return Corrupted(x_0=x_0, x_t=x_t, t=t, target=x_0, mask=mask, scored=hidden)

    def loss(self, prediction: Float[Tensor, "b n k"], corrupted: Corrupted) -> Float[Tensor, "b"]:
        """Weighted cross-entropy of the hidden tokens per existing token, in nats, for each sample."""
        nll = self.token_nll(prediction, corrupted)
        length = corrupted.mask.sum(1) if corrupted.mask is not None else torch.full_like(nll[:, 0], nll.shape[1])
        per_token = nll.sum(1) / length.clamp(min=1)
        weight = self.elbo_weight(corrupted.t) if self.time_weight == "elbo" else torch.full_like(corrupted.t, 2.0)
        return per_token * weight.to(per_token)

    def token_nll(self, prediction: Float[Tensor, "b n k"], corrupted: Corrupted) -> Float[Tensor, "b n"]:
        """Cross-entropy of each hidden token, 0 where nothing is hidden, in float32 or wider."""
        logits = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target = corrupted.target.clamp(0, self.num_tokens - 1)
        nll = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view_as(target)
        return nll if corrupted.scored is None else torch.where(corrupted.scored, nll, torch.zeros_like(nll))

    def elbo_weight(self, t: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """-k'(t) / (1 - k(t)) = 1 / t: nats per unit of summed cross-entropy of hidden tokens."""
        return 1.0 / t

    def prior(self, like: Int[Tensor, "b n"], noise: NoiseSource) -> Int[Tensor, "b n"]:
        """All tokens masked."""
        return torch.full_like(like, self.mask_token)

    def reveal_probability(self, t: float, s: float) -> float:
        """Probability that a token masked at t > 0 is revealed by s < t: (k(s) - k(t)) / (1 - k(t)) = (t - s) / t."""
        return (t - s) / t

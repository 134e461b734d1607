"""Ancestral sampling of masked diffusion (THEORY section 6).

Going from t to s, a masked token is revealed with probability (t - s) / t. So the time at which each token is revealed
is uniform on (0, 1) and independent of everything else: it is drawn up front, and the denoiser runs only at the steps
at which some token is revealed. A batch costs at most min(steps, hidden tokens) evaluations. When it is revealed, a
token is a draw of softmax(logits / temperature); it is never changed again.

`order="confidence"` reveals, at each step, as many tokens as the random order would, those with the largest probability
of their draw first. That is a heuristic: its samples are not those of the model's distribution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reed_core.denoiser import Denoiser
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.process.base import check_possible
from reed_core.process.masked import Masked

Order = Literal["random", "confidence"]


@dataclass(frozen=True)
class Unmasked:
    """What a masked sampler returns.

    Attributes:
        tokens: Samples, [b, n].
        evaluations: How often the denoiser was run.
    """

    tokens: Int[Tensor, "b n"]
    evaluations: int


@torch.no_grad()
def unmask(
    process: Masked,
    denoiser: Denoiser,
    x: Int[Tensor, "b n"],
    steps: int,
    noise: NoiseSource,
    c: Any = None,
    temperature: float = 1.0,
    order: Order = "random",
    mask: Bool[Tensor, "b n"] | None = None,
    adjust: Callable[[Float[Tensor, "b n k"]], Float[Tensor, "b n k"]] | None = None,
) -> Unmasked:
    """Fills in the masked tokens of x.

    Args:
        process: The process the denoiser was trained on.
        denoiser: The denoiser, or a guidance around one; called as `denoiser(x_t, t, c)`.
        x: Tokens; those equal to `process.mask_token` are sampled, the others are kept and seen.
        steps: Largest number of steps.
        noise: One stream per sample.
        c: The condition.
        temperature: Divides the logits, >= 0; 0 takes the most probable token.
        order: "random" (exact) or "confidence".
        mask: True where a token exists; others are left alone.
        adjust: Changes the logits before the temperature (biases, forbidden tokens).

    Returns:
        The samples and the number of evaluations.

    Raises:
        InputError: If an argument is out of range, the noise is for another number of samples, or no token is possible.
    """
    if steps < 1 or not temperature >= 0:
        raise InputError(f"expected steps >= 1 and temperature >= 0, got {steps} and {temperature}")
    if order not in ("random", "confidence"):
        raise InputError(f"order '{order}' is unknown; expected random or confidence")
    if len(noise) != x.shape[0]:
        raise InputError(f"noise for {len(noise)} samples, but a batch of {x.shape[0]}; give one stream per sample")
    hidden = x == process.mask_token
    if mask is not None:
        hidden = hidden & mask
    reveal_step = (noise.uniform(x.shape[1:]) * steps).long().to(x.device)  # float64 stays on the CPU
    draw = noise.gumbel((*x.shape[1:], process.num_tokens)).to(x.device)
    # Step i = steps..1 goes from t = i / steps to (i - 1) / steps and reveals the tokens whose time lies between.
    step_of = torch.where(hidden, reveal_step + 1, 0)
    evaluations = 0
    for step in range(steps, 0, -1):
        due = step_of == step
        if not bool(due.any()):
            continue
        t = torch.full((x.shape[0],), step / steps, device=x.device)
        logits = denoiser(x, t, c).float()
        evaluations += 1
        if adjust is not None:
            logits = adjust(logits)
        check_possible(logits, hidden)
        noisy = logits if temperature == 0 else logits / temperature + draw
        drawn = noisy.argmax(-1)
        if order == "confidence":
            due = _most_confident(logits, drawn, hidden, due.sum(1))
        x = torch.where(due, drawn, x)
        hidden = hidden & ~due
    return Unmasked(x, evaluations)


def _most_confident(
    logits: Float[Tensor, "b n k"], drawn: Int[Tensor, "b n"], hidden: Bool[Tensor, "b n"], count: Int[Tensor, "b"]
) -> Bool[Tensor, "b n"]:
    confidence = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
    confidence = torch.where(hidden, confidence, -torch.inf)
    rank = confidence.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return hidden & (rank < count[:, None])

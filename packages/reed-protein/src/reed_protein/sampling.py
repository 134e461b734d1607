"""Filling in the sites of a design: ancestral sampling of masked diffusion, a site at a time.

`reed_core.sample.masked.unmask` for sites instead of residues (`ties`): a site's time and its random numbers are
those of its first residue, its logits the weighted mean of its residues' logits plus its bias. Without ties and
limits the samples are those of `unmask`. A step asks the network for the sites it draws alone. With limits
(`allowance`), the sites of one step take letters in the order of their times, the surest first with
`order="confidence"`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from reed_core.noise import NoiseSource
from torch import Tensor

from reed_protein.allowance import Allowance
from reed_protein.network import MASK_TOKEN, NUM_TOKENS, Encoding, InverseFolding
from reed_protein.sites import Sites


@dataclass(frozen=True)
class Filled:
    """What the sampler returns: tokens [b, n] without a mask, and how often the decoder was run."""

    tokens: Int[Tensor, "b n"]
    evaluations: int


@torch.no_grad()
def fill(
    network: InverseFolding,
    encoding: Encoding,
    start: Int[Tensor, "n"],
    sites: Sites,
    noise: NoiseSource,
    steps: int,
    temperature: float,
    order: Literal["random", "confidence"] = "random",
    allowances: Sequence[Allowance] | None = None,
    penalty: Float[Tensor, "s 20"] | None = None,
) -> Filled:
    """Draws the sites of a batch of designs of one structure.

    Args:
        network: The network, in evaluation mode.
        encoding: The structure, a row per design.
        start: Tokens; what the sites draw is not looked at.
        sites: What is drawn.
        noise: One stream per design.
        steps: Largest number of decoder evaluations.
        temperature: Divides the logits, >= 0; 0 takes the most probable letter.
        order: "random" (exact) or "confidence".
        allowances: The limits of each design, used up here.
        penalty: Taken from the logits of each site, nats.
    """
    device, size = start.device, len(noise)
    places, site_of, first = (torch.from_numpy(a).to(device) for a in (sites.places, sites.site, sites.first))
    weights = torch.from_numpy(sites.weights).to(device)[:, None]
    bias = torch.from_numpy(sites.bias).to(device)
    bias = bias if penalty is None else bias - penalty
    tied = len(places) > len(first)
    times = noise.uniform(start.shape)[:, sites.first]  # float64 stays on the CPU
    draw = noise.gumbel((*start.shape, NUM_TOKENS))[:, sites.first].to(device)
    step_of = ((times * steps).long() + 1).to(device)
    x = start.expand(size, -1).clone()
    x[:, places] = MASK_TOKEN
    hidden = torch.ones_like(step_of, dtype=torch.bool)
    evaluations = 0
    for step in range(steps, 0, -1):
        due = step_of == step
        if not bool(due.any()):
            continue
        looked_at = hidden if order == "confidence" else due
        wanted = torch.zeros_like(x, dtype=torch.bool)
        wanted[:, places] = looked_at[:, site_of]
        logits = network(x, None, encoding, wanted)
        evaluations += 1
        if tied:
            mean = torch.zeros(size, len(first), NUM_TOKENS, device=device)
            logits = mean.index_add_(1, site_of, logits[:, places] * weights)
        else:
            logits = logits[:, places]
        logits = logits + bias
        noisy = logits if temperature == 0 else logits / temperature + draw
        drawn = noisy.argmax(-1)
        priority = times
        if order == "confidence":
            sureness = logits.log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
            due = _surest(sureness, hidden, due.sum(1))
            priority = sureness
        if allowances is not None:
            drawn = _within(allowances, noisy, due, priority.cpu())
        x[:, places] = torch.where(due, drawn, x[:, first])[:, site_of]
        hidden = hidden & ~due
    return Filled(x, evaluations)


def _surest(
    sureness: Float[Tensor, "b s"], hidden: Bool[Tensor, "b s"], count: Int[Tensor, "b"]
) -> Bool[Tensor, "b s"]:
    """The surest hidden sites, `count` of each design."""
    ranked = torch.where(hidden, sureness, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return hidden & (ranked.argsort(dim=1) < count[:, None])


def _within(
    allowances: Sequence[Allowance], noisy: Float[Tensor, "b s 20"], due: Bool[Tensor, "b s"], priority: Tensor
) -> Int[Tensor, "b s"]:
    """The letters that sites take in turn, largest priority first."""
    preferred = noisy.argsort(dim=-1, descending=True, stable=True).cpu()
    drawn = preferred[..., 0].clone()
    for row, allowance in enumerate(allowances):
        turn = [site for site in priority[row].argsort(descending=True, stable=True).tolist() if due[row, site]]
        for site in turn:
            drawn[row, site] = allowance.take(site, preferred[row, site].tolist())
    return drawn.to(noisy.device)

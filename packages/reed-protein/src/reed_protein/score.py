"""How probable is a sequence on a backbone? Three numbers, each in nats per residue, lower is better.

any-order  the network takes no time, so it is an any-order autoregressive model: residues are revealed in a random
           order, in blocks, each scored given the backbone and all blocks before it. With as many blocks as residues it
           is -log p of that order's factorisation; with fewer, residues of one block do not see each other. Averaged
           over `orders`. Comparable with an autoregressive model's score.
ELBO       E_t [1/t sum of the cross-entropy of tokens masked with probability t] (THEORY section 6): the same average
           over orders in the limit of continuous time.
one-shot   every residue given the backbone alone. Comparable with one-shot models.

Sign: all three are minus log-probabilities, so lower is more probable; exp of one is a perplexity.

Orders and masks are keyed by a fixed seed and the position in the protein: a score depends on sequence, backbone and
the set of scored residues alone, never on the seed, order or batch a design came from. A residue of unknown type (X) is
shown to the others as unknown and is not scored itself.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from reed_core.noise import NoiseSource
from reed_core.process import Masked
from torch import Tensor
from torch.nn import functional as F

from reed_protein.network import MASK_TOKEN, UNKNOWN_TOKEN, Encoding, InverseFolding

SCORE_SEED = 2507_08980
BLOCKS = 10
# Sequences evaluated at once, times their residues: enough that no time is lost between them.
_AT_ONCE_CPU, _AT_ONCE_ELSEWHERE = 5000, 40_000

ScoreKind = Literal["any-order", "one-shot", "none"]


@dataclass(frozen=True)
class Score:
    """Mean negative log-likelihood of each sequence, nats per residue; not a number where no residue is scored.

    Attributes:
        any_order: The any-order score; the `score` in the header of a design.
        elbo: The ELBO.
        one_shot: The one-shot score.
        residues: How many residues each is a mean over.
    """

    any_order: Float[Tensor, "b"]
    elbo: Float[Tensor, "b"]
    one_shot: Float[Tensor, "b"]
    residues: Int[Tensor, "b"]


def _token_nll(logits: Float[Tensor, "b n k"], tokens: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    target = tokens.clamp(max=UNKNOWN_TOKEN - 1)
    return F.cross_entropy(logits.transpose(1, 2), target, reduction="none")


def _mean(nll: Float[Tensor, "b n"], scored: Bool[Tensor, "b n"]) -> Float[Tensor, "b"]:
    return torch.where(scored, nll, 0.0).sum(1) / scored.sum(1).clamp(min=1)


@torch.no_grad()
def any_order_nll(
    network: InverseFolding,
    encoding: Encoding,
    tokens: Int[Tensor, "b n"],
    scored: Bool[Tensor, "b n"],
    blocks: int = BLOCKS,
    orders: int = 1,
) -> Float[Tensor, "b"]:
    """The any-order score; `blocks` evaluations of the decoder per order.

    Args:
        network: The network, in evaluation mode.
        encoding: The backbones, encoded, one row per sequence.
        tokens: The sequences.
        scored: Residues that count (all others are shown from the start).
        blocks: Blocks per order.
        orders: Random orders averaged over.
    """
    total = torch.zeros(tokens.shape[0], device=tokens.device)
    for order in range(orders):
        # One stream shared by all rows: the order of a protein does not depend on the row it stands in.
        priority = NoiseSource(SCORE_SEED, [order]).uniform(tokens.shape[1:]).to(tokens.device).expand(tokens.shape)
        rank = torch.where(scored, priority, 2.0).argsort(1).argsort(1)
        block = (rank * blocks).div(scored.sum(1, keepdim=True).clamp(min=1), rounding_mode="floor")
        nll = torch.zeros_like(tokens, dtype=torch.float32)
        for current in range(blocks):
            x_t = torch.where(scored & (block >= current), MASK_TOKEN, tokens)
            due = scored & (block == current)
            if not bool(due.any()):
                continue
            nll = torch.where(due, _token_nll(network(x_t, None, encoding, due), tokens), nll)
        total += _mean(nll, scored)
    return total / orders


@torch.no_grad()
def elbo_nll(
    network: InverseFolding,
    encoding: Encoding,
    tokens: Int[Tensor, "b n"],
    scored: Bool[Tensor, "b n"],
    draws: int = 16,
) -> Float[Tensor, "b"]:
    """The ELBO estimated from `draws` evenly spread times, in nats per residue.

    Args:
        network: The network, in evaluation mode.
        encoding: The backbones, encoded, one row per sequence.
        tokens: The sequences.
        scored: Residues that count.
        draws: Times, at (i + 1/2) / draws.
    """
    process = Masked(UNKNOWN_TOKEN, MASK_TOKEN, time_weight="elbo")
    total = torch.zeros(tokens.shape[0], device=tokens.device)
    for draw in range(draws):
        hidden = NoiseSource(SCORE_SEED, [draw]).uniform(tokens.shape[1:]).to(tokens.device) < (draw + 0.5) / draws
        t = torch.full((tokens.shape[0],), (draw + 0.5) / draws, device=tokens.device)
        hidden = hidden.expand(tokens.shape) & scored
        nll = _token_nll(network(torch.where(hidden, MASK_TOKEN, tokens), t, encoding, hidden), tokens)
        total += process.elbo_weight(t) * torch.where(hidden, nll, 0.0).sum(1) / scored.sum(1).clamp(min=1)
    return total / draws


@torch.no_grad()
def one_shot_nll(
    network: InverseFolding, encoding: Encoding, tokens: Int[Tensor, "b n"], scored: Bool[Tensor, "b n"]
) -> Float[Tensor, "b"]:
    """The one-shot score: one evaluation with every scored residue masked, one for all sequences of a structure."""
    logits = network(torch.where(scored, MASK_TOKEN, tokens), None, encoding, scored)
    return _mean(_token_nll(logits, tokens), scored)


@torch.no_grad()
def header_score(
    network: InverseFolding,
    encoding: Encoding,
    tokens: Int[Tensor, "b n"],
    scored: Bool[Tensor, "b n"],
    kind: ScoreKind,
) -> list[float | None]:
    """The score of one kind of each sequence, as `score_sequences` gives it; None for the kind "none"."""
    if kind == "none":
        return [None] * len(tokens)
    of = any_order_nll if kind == "any-order" else one_shot_nll
    return [*of(network, encoding, tokens, scored & (tokens < UNKNOWN_TOKEN)).tolist()]


def rows_at_once(length: int, device: torch.device) -> int:
    """How many sequences of a length to evaluate at once on a device."""
    residues = _AT_ONCE_CPU if device.type == "cpu" else _AT_ONCE_ELSEWHERE
    return max(1, residues // max(1, length))


@torch.no_grad()
def score_sequences(
    network: InverseFolding, encoding: Encoding, tokens: Int[Tensor, "s n"], counted: Bool[Tensor, "n"]
) -> Score:
    """All three scores of several sequences of one backbone, a few sequences at a time.

    Args:
        network: The network, in evaluation mode.
        encoding: The backbone, encoded; one row.
        tokens: The sequences; unknown residues are allowed.
        counted: The residues the scores are over (those designed, or all); the others are shown from the start.

    Returns:
        The scores, on the CPU.
    """
    parts: list[list[Tensor]] = []
    for rows in tokens.split(rows_at_once(tokens.shape[1], tokens.device)):
        shared, scored = encoding.repeat(len(rows)), counted & (rows < UNKNOWN_TOKEN)
        number = scored.sum(1)
        found = [kind(network, shared, rows, scored) for kind in (any_order_nll, elbo_nll, one_shot_nll)]
        parts.append([*(torch.where(number > 0, value, torch.nan).cpu() for value in found), number.cpu()])
    return Score(*(torch.cat(column) for column in zip(*parts, strict=True)))

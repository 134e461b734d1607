"""D12: kernels of a masked process must not be mixed to sample from; token logits may.

A masked token stays masked with chance s, and else becomes a draw of p_u or p_c. With zeta = sum_k p_u(k)^{1-A}
p_c(k)^A, the hybrid of the two kernels stays masked with chance s / (s + (1 - s) zeta) >= s, and as the step shrinks
unmasks at zeta times the rate: however fine the steps, its chain reaches data too masked. Given that it unmasks, it is
the softmax of mixed logits.
"""

from collections.abc import Iterator

import torch
from reed_core.bound.hybrid import mix_logits
from reed_core.bound.kernels import CategoricalKernel
from reed_core.process.base import Corrupted
from reed_core.process.masked import Masked
from torch import Tensor

from theory_checks.check import PRESENT, Check, deviation, excess
from theory_checks.setting import Setting

_STEP = 1e-7


def check_masked(s: Setting) -> Iterator[Check]:
    """Two random token distributions, many steps and survivals."""
    count, tokens = 40, 3 + s.model.steps % 5
    logits_u, logits_c = 1.5 * s.randn(2, count, tokens)
    p_u, p_c, A = logits_u.softmax(-1), logits_c.softmax(-1), 0.05 + 0.9 * s.rand(count)
    zeta = (p_u ** (1 - A[:, None]) * p_c ** A[:, None]).sum(-1)
    stay = 0.05 + 0.9 * s.rand(count)
    mixed = mixed_kernels(p_u, p_c, A, stay)
    tokens_given = mixed[:, :-1] / mixed[:, :-1].sum(-1, keepdim=True)
    inflated = stay / (stay + (1 - stay) * zeta)
    yield Check("D12", "stay-masked chance of mixed kernels", deviation(mixed[:, -1], inflated))
    yield Check("D12", "mixing kernels never unmasks more", excess(stay, mixed[:, -1]))
    yield Check("D12", "least inflation of stay-masked", float((mixed[:, -1] - stay).min()), PRESENT, at_least=True)
    logits = mix_logits(logits_u, logits_c, A)
    yield Check("D12", "mixed kernels given unmasking = mixed logits", deviation(logits.exp(), tokens_given))
    kept = (1 - stay[:, None]) * logits.exp()
    yield Check("D12", "mixed logits leave stay-masked alone", deviation(1 - kept.sum(-1), stay))

    # in continuous time: the chance to unmask in a short step over that of p_u and p_c, and reed_core's own rate
    short = mixed_kernels(p_u, p_c, A, torch.full_like(stay, 1 - _STEP))[:, :-1].sum(-1) / _STEP
    yield Check("D12", "continuous time: rate falls to zeta times", deviation(short, zeta), 10 * _STEP)
    yield Check("D12", "continuous time: least loss of rate", float((1 - short).min()), 100 * _STEP, at_least=True)
    process = Masked(tokens, mask_token=tokens)
    t = 0.1 + 0.9 * s.rand(count)
    hidden = torch.full((count, 1), process.mask_token)
    target = torch.zeros_like(hidden)
    corrupted = Corrupted(target, hidden, t, target, scored=torch.ones_like(hidden, dtype=torch.bool))
    nats = process.hybrid_nats(logits_u[:, None], logits_c[:, None], A, corrupted)
    yield Check("D12", "log Z per unit of time = -(1 - zeta) / t", deviation(nats.log_normaliser, -(1 - zeta) / t))

    # two kernels that disagree: 0.35 becomes about one half
    sharp = torch.cat([0.3 * s.randn(3), 3.0 + s.rand(1)])
    p_u, p_c = sharp.softmax(-1)[None], sharp.flip(-1).softmax(-1)[None]
    half, stay = torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.35], dtype=torch.float64)
    found = float(mixed_kernels(p_u, p_c, half, stay)[0, -1])
    yield Check("D12", "kernels that disagree: 0.35 becomes", found, 0.42, at_least=True)


def mixed_kernels(p_u: Tensor, p_c: Tensor, A: Tensor, stay: Tensor) -> Tensor:
    """The hybrid of the two kernels of one masked token; the last state is the mask."""
    tables = [torch.cat([(1 - stay[:, None]) * p, stay[:, None]], -1) for p in (p_u, p_c)]
    alone, given = (CategoricalKernel(table.log()) for table in tables)
    return alone.hybrid(given, A).kernel.log_probs.exp()

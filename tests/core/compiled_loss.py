"""A program: compiles the objective's loss and prints how it compares with the eager one, a line of JSON per setting.

It runs by itself, because run-time type checks wrap every function of reed_core under pytest, and torch.compile cannot
follow them.

    python compiled_loss.py aot_eager [setting ...]
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from reed_core.curriculum import Curriculum, Schedule
from reed_core.head import Categorical, Gaussian
from reed_core.inject import AdaLN, CrossAttention, Injected
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.question import Question
from reed_core.reveal import Beta
from torch import Tensor, nn

KINDS = ("on", "off by curriculum", "told", "told, null pass")
LATENTS = (
    Latent("patch", "blocks.0", 16, 4, Gaussian(), hidden=16),
    Latent("kind", "blocks.1", 16, 3, Categorical(), "global", hidden=16, reveal=Beta(2.0, 1.0)),
)
MASK = torch.arange(6)[None] < torch.tensor([6, 3, 5, 1])[:, None]


class Transformer(nn.Module):
    """A small transformer; c is the mask."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(3, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 32, dropout=0.0, batch_first=True) for _ in range(2)
        )

    def forward(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        h = self.up(x_t) + t[:, None, None]
        for block in self.blocks:
            h = block(h, src_key_padding_mask=~c)
        return self.out(h)


def setting(kind: str) -> tuple[Objective, nn.Module]:
    """An objective and its denoiser."""
    torch.manual_seed(0)
    network: nn.Module = Transformer()
    latents, more = list(LATENTS), {}
    if kind == "off by curriculum":
        more["curriculum"] = Curriculum(alignment=Schedule(decay="stop", end=10))
    if kind.startswith("told"):
        latents = [replace(latent, injection="explicit") for latent in latents]
        network = Injected(network, [CrossAttention("patch", 4, "blocks.0", 16), AdaLN("kind", 8, "blocks.1", 16, 3)])
        for parameter in network.adapters.parameters():  # adapters start at zero: wake them
            nn.init.normal_(parameter, std=0.2)
    if kind == "told, null pass":
        more["head_pass"] = "null"
    return Objective(Interpolant(), latents, **more), network


def questions(objective: Objective, count: int) -> Iterator[Question]:
    """Batches, with a curriculum that moves."""
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        z = {
            "patch": Representation(torch.randn(4, 6, 4, generator=generator), MASK),
            "kind": Representation(torch.randint(3, (4,), generator=generator)),
        }
        x_0 = torch.randn(4, 6, 3, generator=generator)
        yield objective.draw(x_0, NoiseSource(number, range(4)), z=z, c=MASK, mask=MASK, n=100 + number)


def gap(one: Tensor, other: Tensor) -> float:
    return float(((one - other).abs() / (1 + other.abs())).max())


def compare(kind: str, backend: str) -> dict[str, Any]:
    """Values and gradients over several batches; `fullgraph` raises at the first graph break."""
    objective, network = setting(kind)
    parameters = [*network.parameters(), *objective.parameters()]
    graphs: list[int] = []

    def counting(module: Any, inputs: Any) -> Any:
        graphs.append(1)
        return torch._dynamo.lookup_backend(backend)(module, inputs)

    compiled = torch.compile(objective.loss, fullgraph=True, backend=counting)
    values, slopes, alignment, shown = [0.0], [0.0], set(), 0
    for question in questions(objective, 2):
        eager, fast = objective.loss(network, question), compiled(network, question)
        values += [gap(fast.total, eager.total), gap(fast.denoising, eager.denoising)]
        values += [gap(fast.alignment[name], value) for name, value in eager.alignment.items()]
        alignment |= set(fast.alignment)
        shown += sum(int(said.shown.sum()) for said in (question.told or {}).values())
        both = [torch.autograd.grad(loss.total, parameters, allow_unused=True) for loss in (fast, eager)]
        for one, other in zip(*both, strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                slopes.append(gap(one, other))
    return {
        "kind": kind,
        "graphs": len(graphs),
        "values": max(values),
        "slopes": max(slopes),
        "alignment": sorted(alignment),
        "shown": shown,
    }


if __name__ == "__main__":
    for chosen in sys.argv[2:] or KINDS:
        torch._dynamo.reset()
        sys.stdout.write(json.dumps(compare(chosen, sys.argv[1])) + "\n")

"""A program: compiles SiT whole and compares it with the eager network; prints a line of JSON.

It runs by itself, because run-time type checks wrap every function of reed_image under pytest, and torch.compile cannot
follow them.
"""

import json
import sys

import torch
from reed_core.denoiser import Tap
from reed_image.network import Condition, SiT, SiTConfig

CONFIG = SiTConfig(
    size=8, channels=3, width=32, depth=2, heads=2, classes=5, text_dim=6, qk_norm=True, rope=True, learn_sigma=True
)


def main() -> None:
    torch.manual_seed(0)
    net = SiT(CONFIG)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    x, t = torch.randn(3, 3, 8, 8), torch.rand(3)
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    c = Condition(torch.tensor([0, 4, -1]), torch.randn(3, 2, 6), mask)

    def step(x: torch.Tensor, t: torch.Tensor, c: Condition | None) -> tuple[torch.Tensor, torch.Tensor]:
        with Tap(net, ["blocks.0"]) as tap:
            said = net(x, t, c)
        return said, tap["blocks.0"]

    compiled, apart = torch.compile(step, fullgraph=True, backend="aot_eager"), []
    for condition in (c, None):
        slopes = []
        for function in (step, compiled):
            net.zero_grad()
            said, hidden = function(x, t, condition)
            (said.square().sum() + hidden.square().sum()).backward()
            slopes.append([said.detach(), hidden.detach(), net.patch.weight.grad, net.blocks[1].mlp.inner.weight.grad])
        apart += [float((one - other).abs().max() / one.abs().max()) for one, other in zip(*slopes, strict=True)]
    sys.stdout.write(json.dumps({"apart": max(apart), "size": float(said.detach().abs().mean())}))


main()

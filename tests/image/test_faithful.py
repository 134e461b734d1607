"""Loss, samplers and guidance of a random network against formulas written out one sample at a time, in float64.

The published sizes and costs are those of test_network.py; the time conventions of published weights, of
test_import_published.py.
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from reed_core import presets
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.sample import ClassifierFree, euler_maruyama, integrate, of_noise
from reed_image.network import Condition, SiT, SiTConfig
from torch import Tensor

COUNT, STEPS = 3, 5
SHAPE = (4, 8, 8)
LABELS = torch.tensor([0, 2, 1])
PAPER = Interpolant(t_min=0.04, t_max=1.0)  # the published sampler's last step is from 0.04


@pytest.fixture(scope="module", autouse=True)
def _wide() -> Iterator[None]:
    """Everything in float64, so that a difference is one of formulas."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def net(_wide: None) -> SiT:
    torch.manual_seed(0)
    made = SiT(SiTConfig(size=8, channels=4, width=32, depth=3, heads=2, classes=3))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return made.eval()


def start(seed: int = 0) -> Tensor:
    return NoiseSource(seed, range(COUNT)).normal(SHAPE).double()


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert expected.std() > 0.05


# Loss


def mlp(parts: Any, h: Tensor) -> Tensor:
    """Linear, SiLU, linear, SiLU, linear."""
    linears = [module for module in parts.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == 3
    for number, linear in enumerate(linears):
        h = linear.weight @ h + linear.bias
        h = h / (1 + torch.exp(-h)) if number < 2 else h
    return h


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def hidden_states(net: SiT, x_t: Tensor, t: Tensor, c: Condition) -> tuple[Tensor, list[Tensor]]:
    """The prediction, and what each block puts out."""
    seen: list[Tensor] = []
    handles = [block.register_forward_hook(lambda _m, _i, out: seen.append(out)) for block in net.blocks]
    said = net(x_t, t, c)
    for handle in handles:
        handle.remove()
    return said, seen


def test_the_loss_of_reed(net: SiT) -> None:
    """L = mean |v - v_hat|^2 - 0.5 mean_patches cos(P(h_patch), z_patch) - 0.25 cos(P(mean h), z)."""
    tokens = Latent("tokens", "blocks.0", 32, 6, weight=0.5, hidden=12)
    text = Latent("text", "blocks.1", 32, 9, level="global", weight=0.25, hidden=12)
    objective: Objective = presets.reed(Interpolant(), [tokens, text]).double()
    z = {
        "tokens": Representation(NoiseSource(2, range(COUNT)).normal((16, 6)).double()),
        "text": Representation(NoiseSource(3, range(COUNT)).normal((9,)).double()),
    }
    x_0, c = start(1), Condition(LABELS)
    found = objective(net, x_0, NoiseSource(7, range(COUNT)), z=z, c=c)
    noise = NoiseSource(7, range(COUNT))
    t = 0.001 + 0.998 * noise.times().double()
    eps = noise.normal(SHAPE).double()
    total = torch.zeros(())
    for i in range(COUNT):
        x_t = (1 - t[i]) * x_0[i] + t[i] * eps[i]
        said, states = hidden_states(net, x_t[None], t[i : i + 1], Condition(LABELS[i : i + 1]))
        denoising = sum((eps[i] - x_0[i] - said[0]).flatten() ** 2) / said.numel()
        projected = [mlp(objective.readout("tokens"), patch) for patch in states[0][0]]
        image = sum(cosine(one, other) for one, other in zip(projected, z["tokens"].z[i], strict=True)) / 16
        pooled = sum(states[1][0]) / 16
        total = total + (
            denoising - 0.5 * image - 0.25 * cosine(mlp(objective.readout("text"), pooled), z["text"].z[i])
        )
    torch.testing.assert_close(found.total, total / COUNT, rtol=1e-6, atol=1e-6)


# Samplers, one sample at a time: the velocity of guidance w within an interval is e(0) + w (e(c) - e(0))


def velocity(net: SiT, i: int, x: Tensor, t: float, scale: float, interval: tuple[float, float]) -> Tensor:
    time = torch.tensor([t])
    told = net(x[None], time, Condition(LABELS[i : i + 1]))[0]
    if scale == 1 or not interval[0] <= t <= interval[1]:
        return told
    null = net(x[None], time, Condition(torch.tensor([-1])))[0]
    return null + scale * (told - null)


GUIDANCE = pytest.mark.parametrize(
    ("scale", "interval"), [(1.0, (0.0, 1.0)), (0.0, (0.0, 1.0)), (2.5, (0.0, 1.0)), (2.5, (0.2, 0.7))]
)


def times(process: Interpolant) -> list[float]:
    return torch.linspace(process.t_max, process.t_min, STEPS + 1).tolist()


@torch.no_grad()
@GUIDANCE
@pytest.mark.parametrize("method", ["euler", "heun"])
def test_the_probability_flow(net: SiT, method: Any, scale: float, interval: tuple[float, float]) -> None:
    """Euler and Heun steps of dx/dt = v, then x_0 = x - t v."""
    x = start()
    found = integrate(PAPER, ClassifierFree(net, None, scale, interval), x, STEPS, Condition(LABELS), method)
    rows = []
    for i in range(COUNT):
        y = x[i]
        for t, s in pairwise(times(PAPER)):
            slope = velocity(net, i, y, t, scale, interval)
            ahead = y + (s - t) * slope
            if method == "heun":
                ahead = y + (s - t) * (slope + velocity(net, i, ahead, s, scale, interval)) / 2
            y = ahead
        rows.append(y - PAPER.t_min * velocity(net, i, y, PAPER.t_min, scale, interval))
    near(found, torch.stack(rows))


@torch.no_grad()
@GUIDANCE
def test_euler_maruyama(net: SiT, scale: float, interval: tuple[float, float]) -> None:
    """dx = [v - w/2 s] dt + sqrt(w) dW with w = 2t and s = -(x + (1-t) v) / t; then the mean, x_0 = x - t v at t_min.

    REPA's and REED's last step is the drift without its noise, x - t (v - t s) = x_0 - t eps: it takes the predicted
    eps away once more, at t = 0.04. Nothing here does.
    """
    x, c = start(), Condition(LABELS)
    guided = ClassifierFree(net, None, scale, interval)
    found = euler_maruyama(PAPER, guided, x, STEPS, NoiseSource(4, range(COUNT)), c, diffusion=of_noise(PAPER, 2.0))
    noise = NoiseSource(4, range(COUNT))
    drawn = [noise.normal(SHAPE).double() for _ in range(STEPS)]
    rows = []
    for i in range(COUNT):
        y = x[i]
        for number, (t, s) in enumerate(pairwise(times(PAPER))):
            v = velocity(net, i, y, t, scale, interval)
            score = -(y + (1 - t) * v) / t
            y = y + (s - t) * (v - t * score) + math.sqrt(2 * t * (t - s)) * drawn[number][i]
        rows.append(y - PAPER.t_min * velocity(net, i, y, PAPER.t_min, scale, interval))
    near(found, torch.stack(rows))

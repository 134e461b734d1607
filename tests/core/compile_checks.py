"""Run by `test_compile.py`, without shape checks: functions that compile with fullgraph=True, and how often."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from reed_core.denoiser import Tap
from reed_core.generator import Flow
from reed_core.head import Categorical, Gaussian, VonMisesFisher
from reed_core.inject import AdaLN, CrossAttention, Injected, Token
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.readout import Readout
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

WIDTH = 8
T = torch.zeros(3)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.inner(x) + x.mean(1, keepdim=True))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(4))

    def forward(self, x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@dataclass
class Compiled:
    """A function compiled into whole graphs, and how many there are."""

    function: Callable[..., Tensor]

    def __post_init__(self) -> None:
        self.counter = CompileCounterWithBackend("eager")
        self.fast = torch.compile(self.function, backend=self.counter, fullgraph=True)

    def check(self, parameters: list[nn.Parameter], *arguments: Any) -> None:
        """Value and gradient are those of the function itself."""
        one, other = self.fast(*arguments), self.function(*arguments)
        torch.testing.assert_close(one, other)
        fast, slow = (torch.autograd.grad(value, parameters, materialize_grads=True) for value in (one, other))
        for a, b in zip(fast, slow, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_a_tap_inside_a_compiled_function() -> None:
    network = Network()

    def loss(x: Tensor) -> Tensor:
        with Tap(network, ["blocks.1", "blocks.3.inner"]) as tap:
            out = network(x, T)
        return out.sum() + tap["blocks.1"].square().sum() + tap["blocks.3.inner"].exp().mean()

    compiled = Compiled(loss)
    for seed in range(4):
        compiled.check(list(network.parameters()), rand(3, 5, WIDTH, seed=seed))
    assert compiled.counter.frame_count == 1
    assert hooks(network) == 0


def test_two_passes_and_two_taps_inside_a_compiled_function() -> None:
    """As a second forward with null tokens needs."""
    network = Network()

    def loss(x: Tensor) -> Tensor:
        with Tap(network, ["blocks.1"]) as tap:
            network(x, T)
        with Tap(network, ["blocks.1", "blocks.2"]) as other:
            network(2 * x, T)
        return tap["blocks.1"].square().sum() + other["blocks.1"].sum() + other["blocks.2"].sum()

    compiled = Compiled(loss)
    for seed in range(3):
        compiled.check(list(network.blocks[:3].parameters()), rand(3, 5, WIDTH, seed=seed))
    assert compiled.counter.frame_count == 1
    assert hooks(network) == 0


@pytest.mark.parametrize("same", [True, False])
def test_a_tap_around_a_compiled_function(same: bool) -> None:
    """The same tap again and again, or a new one for every call."""
    network = Network()
    own = Tap(network, ["blocks.1"])
    counter = CompileCounterWithBackend("eager")

    def loss(x: Tensor, tap: Tap) -> Tensor:
        return network(x, T).sum() + tap["blocks.1"].square().sum()

    compiled = torch.compile(loss, backend=counter, fullgraph=True)
    for seed in range(4):
        values = []
        for function in (compiled, loss):
            with own if same else Tap(network, ["blocks.1"]) as tap:
                values.append(function(rand(3, 5, WIDTH, seed=seed), tap))
        torch.testing.assert_close(*values)
    assert counter.frame_count == 1


def test_a_network_compiled_by_itself_is_tapped_in_a_compiled_function() -> None:
    network = Network()
    inner = torch.compile(network, backend="eager")

    def loss(x: Tensor) -> Tensor:
        with Tap(inner, ["blocks.1"]) as tap:
            out = inner(x, T)
        return out.sum() + tap["blocks.1"].square().sum()

    Compiled(loss).check(list(network.parameters()), rand(3, 5, WIDTH))


def injected() -> Injected:
    adapters = [
        CrossAttention("whole", 3, at="blocks.0", width=WIDTH),
        AdaLN("class", 6, at="blocks.0", width=WIDTH, num_classes=5),
        CrossAttention("other", 2, at="blocks.2", width=WIDTH, heads=2),
        Token("whole", 3, at="blocks.1", until="blocks.2", width=WIDTH),
    ]
    made = Injected(Network(), adapters)
    with torch.no_grad():
        for parameter in made.adapters.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def told(seed: int) -> dict[str, Revealed]:
    shown = rand(3, seed=seed) > 0
    return {
        "whole": Revealed(rand(3, 3, seed=seed), None, shown),
        "class": Revealed(torch.tensor([0, 4, -1]), None, ~shown),
        "other": Revealed(rand(3, 7, 2, seed=seed), rand(3, 7, seed=seed) > 0, shown),
    }


def test_an_injected_network_and_its_taps() -> None:
    """One graph with z and one without."""
    made = injected()

    def loss(x: Tensor, z: dict[str, Revealed] | None) -> Tensor:
        with Tap(made, ["network.blocks.1", "blocks.0"], blind={"blocks.0": ["whole"]}) as tap:
            out = made(x, T, None, z)
        return out.square().sum() + tap["network.blocks.1"].sum() + tap["blocks.0"].sum()

    compiled = Compiled(loss)
    for seed in range(4):
        compiled.check(list(made.parameters()), rand(3, 5, WIDTH, seed=seed), None if seed % 3 == 2 else told(seed))
    assert compiled.counter.frame_count == 2
    assert hooks(made) == 0


def test_an_injected_module_compiled_as_a_module() -> None:
    made = injected()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(made, backend=counter, fullgraph=True)
    for seed in range(4):
        x = rand(3, 5, WIDTH, seed=seed)
        torch.testing.assert_close(compiled(x, T, None, told(seed)), made(x, T, None, told(seed)))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    "head", [VonMisesFisher(2.0), Gaussian(0.5), Categorical(), Flow(8, 1)], ids=lambda head: type(head).__name__
)
def test_the_energy_of_a_readout(head: Any) -> None:
    given = Latent("given", "b", WIDTH, 5, head=Categorical(), level="global")
    made = Readout(Latent("z", "a", WIDTH, 3, head=head, given=("given",), hidden=7), [given])
    z = torch.randint(3, (3, 4)) if isinstance(head, Categorical) else torch.randn(3, 4, 3)
    mask = torch.rand(3, 4) < 0.6
    compiled = Compiled(lambda *arguments: made.energy(*arguments).sum())
    for seed in range(3):
        drawn = made.draw(Representation(z), NoiseSource(seed, range(3)))
        shown = {"given": Revealed(torch.tensor([1, -1, 4]), None, torch.arange(3) != seed)}
        compiled.check(list(made.parameters()), rand(3, 4, WIDTH, seed=seed), Representation(z), mask, shown, drawn)
    assert compiled.counter.frame_count == 1

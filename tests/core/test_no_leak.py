"""Explicit latents must not leak into their own heads: fed a random z, the alignment learns nothing (THEORY D14)."""

from typing import Any

import pytest
import torch
from reed_core.errors import InputError
from reed_core.head import Categorical
from reed_core.inject import AdaLN, CrossAttention, Injected, Token
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.reveal import Uniform
from torch import Tensor, nn

CLASSES = 4


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 24))
        self.out = nn.Linear(24, 3)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return self.out(self.layers(x_t + t[:, None, None]))


class Leaky(nn.Module):
    """A network of the user's own that mixes z in before the state that is tapped."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.tell = Network(), nn.Embedding(CLASSES, 3)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None, z: dict[str, Revealed] | None = None) -> Tensor:
        for value in (z or {}).values():
            assert value.shown is not None
            x_t = x_t + torch.where(value.shown[:, None], self.tell(value.z), 0.0)[:, None]
        return self.body(x_t, t)


ADAPTERS = {
    "adaln": lambda: AdaLN("z", 8, "layers.2", 24, CLASSES),
    "attention": lambda: CrossAttention("z", 8, "layers.2", 24, num_classes=CLASSES),
    "token": lambda: Token("z", 8, "layers.2", "layers.4", 24, num_classes=CLASSES),
}


def latent(tap: str) -> Latent:
    return Latent("z", tap, 24, CLASSES, Categorical(), "global", hidden=16, injection="explicit", reveal=Uniform())


def cross_entropy_after_training(network: nn.Module, objective: Objective, informative: bool = False) -> float:
    """Of held-out data, after training on fresh z every step; log(CLASSES) = 1.386 says nothing was learned."""
    optimizer = torch.optim.Adam([*network.parameters(), *objective.parameters()], lr=5e-3)
    generator = torch.Generator().manual_seed(1)

    def batch(count: int) -> tuple[Tensor, dict[str, Representation]]:
        x = torch.randn(count, 2, 3, generator=generator)
        z = torch.randint(CLASSES, (count,), generator=generator)
        if informative:
            z = 2 * (x[:, 0, 0] > 0).long() + (x[:, 1, 1] > 0).long()
        return x, {"z": Representation(z)}

    for step in range(250):
        x, z = batch(64)
        loss = objective(network, x, NoiseSource(0, range(64 * step, 64 * step + 64)), z=z)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    x, z = batch(4096)
    with torch.no_grad():
        held_out = objective(network, x, NoiseSource(1, range(4096)), z=z)
    return float(held_out.alignment["z"].mean())


NOTHING = torch.tensor(float(CLASSES)).log().item()


@pytest.mark.parametrize("name", list(ADAPTERS))
@pytest.mark.parametrize(("tap", "head_pass"), [("layers.1", "shared"), ("layers.4", "null")])
def test_random_z_is_not_learned(name: str, tap: str, head_pass: str) -> None:
    """Upstream of the injection in the same pass, or anywhere in a second pass."""
    torch.manual_seed(0)
    network = Injected(Network(), [ADAPTERS[name]()])
    objective = Objective(Interpolant(), [latent(tap)], head_pass=head_pass)
    assert cross_entropy_after_training(network, objective) > NOTHING - 0.02


def test_an_informative_z_is_learned() -> None:
    """So the test above would see a leak of as much as this."""
    torch.manual_seed(0)
    network = Injected(Network(), [ADAPTERS["adaln"]()])
    objective = Objective(Interpolant(), [latent("layers.1")])
    assert cross_entropy_after_training(network, objective, informative=True) < NOTHING - 0.1


def test_a_network_that_leaks_is_seen_to_leak() -> None:
    torch.manual_seed(0)
    assert cross_entropy_after_training(Leaky(), Objective(Interpolant(), [latent("body.layers.1")])) < NOTHING - 0.2


def test_a_tap_downstream_of_its_own_injection_is_refused() -> None:
    network = Injected(Network(), [ADAPTERS["adaln"]()])
    x, z = torch.randn(4, 2, 3), {"z": Representation(torch.zeros(4, dtype=torch.long))}
    with pytest.raises(InputError, match=r"layers.4.*layers.2.*tap upstream"):
        Objective(Interpolant(), [latent("layers.4")])(network, x, NoiseSource(0, range(4)), z=z)

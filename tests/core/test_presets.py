"""Every preset learns: a new one is tested by being added to `PRESETS`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reed_core import presets
from reed_core.head import Categorical, VonMisesFisher
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import ConditionDropout, Objective
from reed_core.process import Interpolant, Masked, Process
from reed_core.reveal import PointMass, Uniform
from torch import Tensor, nn

TOKEN = Latent("token", "layers.0", 16, 4, VonMisesFisher(), hidden=16, reveal=PointMass(0.5))
WHOLE = Latent("whole", "layers.2", 16, 3, Categorical(), "global", hidden=16, reveal=PointMass(0.5))

PRESETS: dict[str, Callable[..., Objective]] = {
    "none": presets.none,
    "repa": lambda process, **more: presets.repa(process, TOKEN, **more),
    "reed": lambda process, **more: presets.reed(process, [TOKEN, WHOLE], **more),
    "reed with a curriculum": lambda process, **more: presets.reed(process, [TOKEN, WHOLE], 160, 3000, **more),
}
PROCESSES: list[Process] = [Interpolant(), Masked(4, 4)]
every_preset = pytest.mark.parametrize("name", list(PRESETS))


class Network(nn.Module):
    def __init__(self, process: Process) -> None:
        super().__init__()
        masked = isinstance(process, Masked)
        self.embed = nn.Embedding(5, 16) if masked else nn.Linear(4, 16)
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.out = nn.Linear(16, 4)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        h = self.embed(x_t)
        return self.out(self.layers(h + h.mean(1, keepdim=True) + t[:, None, None]))


def batch(process: Process, positions: range) -> tuple[Tensor, dict[str, Representation]]:
    """Three kinds of samples of five elements; z knows the kind, and the elements."""
    kind = torch.tensor([position % 3 for position in positions])
    tokens = (kind[:, None] + (torch.arange(5) > 2)) % 4
    one_hot = torch.nn.functional.one_hot(tokens, 4).float()
    z = {"token": Representation(one_hot), "whole": Representation(kind)}
    return (tokens if isinstance(process, Masked) else 2 * one_hot), z


@every_preset
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_a_preset_learns_all_it_is_asked(name: str, process: Process) -> None:
    torch.manual_seed(0)
    network, objective = Network(process), PRESETS[name](process)
    optimizer = torch.optim.Adam([*network.parameters(), *objective.parameters()], lr=1e-2)

    def parts() -> dict[str, float]:
        x_0, z = batch(process, range(100_000, 100_128))
        with torch.no_grad():
            loss = objective(network, x_0, NoiseSource(1, range(100_000, 100_128)), z=z)
        return {"denoising": float(loss.denoising.mean()), **{k: float(v.mean()) for k, v in loss.alignment.items()}}

    before = parts()
    for step in range(80):
        positions = range(16 * step, 16 * (step + 1))
        x_0, z = batch(process, positions)
        loss = objective(network, x_0, NoiseSource(0, positions), z=z, n=16 * step)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    after = parts()
    assert set(after) == {"denoising"} | {latent.name for latent in objective.latents}
    for key, value in after.items():
        assert value < before[key] - 0.2 * abs(before[key]), (key, before, after)


def test_presets_name_their_latents_and_reveal_them_uniformly() -> None:
    process = Interpolant()
    assert presets.none(process).latents == ()
    for objective, names in [
        (presets.repa(process, TOKEN), ["token"]),
        (presets.reed(process, [TOKEN, WHOLE]), ["token", "whole"]),
    ]:
        assert [latent.name for latent in objective.latents] == names
        assert all(latent.reveal == Uniform() for latent in objective.latents)
    assert TOKEN.reveal == PointMass(0.5)


def test_reed_puts_representation_first_and_then_lets_go() -> None:
    curriculum = presets.reed(Interpolant(), [TOKEN], denoising_warmup=10, alignment_end=100).curriculum
    assert [curriculum.b(n) for n in (0, 5, 10, 1000)] == [0, 0.5, 1, 1]
    assert [curriculum.a(n) for n in (0, 100, 1000)] == [1, 0, 0]
    assert curriculum.a(50) == pytest.approx(0.5)
    for preset in (
        presets.repa(Interpolant(), TOKEN),
        presets.reed(Interpolant(), [TOKEN]),
        presets.none(Interpolant()),
    ):
        assert [(preset.curriculum.a(n), preset.curriculum.b(n)) for n in (0, 10**9)] == [(1, 1), (1, 1)]


@every_preset
def test_every_preset_may_drop_the_condition(name: str) -> None:
    dropout = ConditionDropout(1.0, lambda c, dropped: "null")
    seen: list[Any] = []

    class Listening(Network):
        def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
            seen.append(c)
            return super().forward(x_t, t, c)

    process = Interpolant()
    x_0, z = batch(process, range(4))
    PRESETS[name](process, condition_dropout=dropout)(Listening(process), x_0, NoiseSource(0, range(4)), z=z, c="class")
    assert set(seen) == {"null"}

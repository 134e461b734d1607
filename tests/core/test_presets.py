"""Every preset learns: a new one is tested by being added to `PRESETS`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from reed_core import presets
from reed_core.coupling import Nested
from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.head import Categorical, VonMisesFisher
from reed_core.inject import AdaLN, Injected, Token
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import ConditionDropout, Objective
from reed_core.process import Interpolant, Masked, Process, Window
from reed_core.reveal import Beta, Cutoff, PointMass, Uniform
from torch import Tensor, nn

TOKEN = Latent("token", "layers.0", 16, 4, VonMisesFisher(), hidden=16, reveal=PointMass(0.5))
WHOLE = Latent("whole", "layers.2", 16, 3, Categorical(), "global", hidden=16, reveal=PointMass(0.5))
CODE = Latent("code", "layers.2", 16, 2, Flow(hidden=32, layers=1), "global")


class Network(nn.Module):
    """Elements that see each other's mean; tokens or vectors."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        masked = isinstance(process, Masked)
        self.embed = nn.Embedding(5, 16) if masked else nn.Linear(4, 16)
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        self.out = nn.Linear(16, 4)

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        h = self.embed(x_t)
        return self.out(self.layers(h + h.mean(1, keepdim=True) + t[:, None, None]))


class JointNetwork(nn.Module):
    """A second field, a vector of the whole."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self.x, self.tell, self.ask = Network(process), nn.Linear(2, 16), nn.Linear(18, 2)

    def forward(self, x_t: dict[str, Tensor], t: Tensor, c: Any = None) -> dict[str, Tensor]:
        h = self.x.embed(x_t["x"]) + self.tell(x_t["z"])[:, None] + t[:, None, None]
        h = self.x.layers(h + h.mean(1, keepdim=True))
        return {"x": self.x.out(h), "z": self.ask(torch.cat([h.mean(1), x_t["z"]], -1))}


@dataclass(frozen=True)
class Preset:
    """How to build an objective, and what network it needs."""

    build: Callable[..., Objective]
    adapters: Callable[[], list[nn.Module]] = list
    network: Callable[[Process], nn.Module] = Network
    continuous: bool = False

    def denoiser(self, process: Process) -> nn.Module:
        adapters: Any = self.adapters()
        return Injected(self.network(process), adapters) if adapters else self.network(process)


def told(*names: str) -> Callable[[], list[nn.Module]]:
    classes = {"whole": 3}
    return lambda: [AdaLN(name, 16 if name in classes else 2, "layers.1", 16, classes.get(name)) for name in names]


EXPLICIT = replace(WHOLE, injection="explicit", tap="layers.0")
PRESETS: dict[str, Preset] = {
    "none": Preset(presets.none),
    "repa": Preset(lambda process, **more: presets.repa(process, TOKEN, **more)),
    "haste": Preset(lambda process, **more: presets.haste(process, TOKEN, 10_000, **more)),
    "reed": Preset(lambda process, **more: presets.reed(process, [TOKEN, WHOLE], **more)),
    "reed with a curriculum": Preset(lambda process, **more: presets.reed(process, [TOKEN, WHOLE], 160, 3000, **more)),
    "cutoff": Preset(lambda process, **more: presets.cutoff(process, TOKEN, 0.1, 0.9, **more)),
    "cutoff, told": Preset(lambda process, **more: presets.cutoff(process, EXPLICIT, 0.1, 0.9, **more), told("whole")),
    "beta": Preset(lambda process, **more: presets.beta(process, TOKEN, 2.0, 1.0, **more)),
    "beta, told": Preset(
        lambda process, **more: presets.beta(process, EXPLICIT, 2.0, 1.0, **more),
        lambda: [Token("whole", 16, "layers.2", "layers.3", 16, num_classes=3)],
    ),
    "label_probe": Preset(lambda process, **more: presets.label_probe(process, WHOLE, **more)),
    "rcg": Preset(lambda process, **more: presets.rcg(process, CODE, **more), told("code")),
    "rcg_hierarchy": Preset(
        lambda process, **more: presets.rcg_hierarchy(process, [WHOLE, CODE], **more), told("whole", "code")
    ),
    "dispersive": Preset(lambda process, **more: presets.dispersive(process, "layers.1", **more)),
    "layer_sync": Preset(lambda process, **more: presets.layer_sync(process, "layers.1", "layers.3", **more)),
    "perceptual": Preset(
        lambda process, **more: presets.perceptual(process, nn.Linear(4, 6).requires_grad_(False), **more),
        continuous=True,
    ),
    "joint": Preset(
        lambda process, **more: presets.joint({"x": process, "z": Interpolant()}, **more), network=JointNetwork
    ),
    "joint, z first": Preset(
        lambda process, **more: presets.joint(
            {"x": process, "z": Interpolant()}, {"z": Window(0.4, 1.0), "x": Window(0.0, 0.6)}, **more
        ),
        network=JointNetwork,
    ),
}
PROCESSES: list[Process] = [Interpolant(), Masked(4, 4)]
every_preset = pytest.mark.parametrize("name", list(PRESETS))


def batch(name: str, process: Process, positions: range) -> tuple[Any, dict[str, Representation]]:
    """Three kinds of samples of five elements; z knows the kind, and the elements."""
    kind = torch.tensor([position % 3 for position in positions])
    tokens = (kind[:, None] + (torch.arange(5) > 2)) % 4
    one_hot = torch.nn.functional.one_hot(tokens, 4).float()
    code = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]])[kind]
    z = {"token": Representation(one_hot), "whole": Representation(kind), "code": Representation(code)}
    x_0: Any = tokens if isinstance(process, Masked) else 2 * one_hot
    return ({"x": x_0, "z": code} if name.startswith("joint") else x_0), z


@every_preset
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: type(process).__name__)
def test_a_preset_learns_all_it_is_asked(name: str, process: Process) -> None:
    preset = PRESETS[name]
    if preset.continuous and isinstance(process, Masked):
        pytest.skip("a predicted x_0 that an encoder can see is continuous")
    torch.manual_seed(0)
    network, objective = preset.denoiser(process), preset.build(process)
    parameters = [*network.parameters(), *objective.parameters()]
    optimizer = torch.optim.Adam([one for one in parameters if one.requires_grad], lr=1e-2)

    def parts() -> dict[str, float]:
        x_0, z = batch(name, process, range(100_000, 100_256))
        with torch.no_grad():
            loss = objective(network, x_0, NoiseSource(1, range(100_000, 100_256)), z=z)
        return {
            "denoising": float(loss.denoising.mean()),
            **{k: float(v.mean()) for k, v in (loss.alignment | loss.regularisation).items()},
        }

    before = parts()
    for step in range(100):
        positions = range(16 * step, 16 * (step + 1))
        x_0, z = batch(name, process, positions)
        loss = objective(network, x_0, NoiseSource(0, positions), z=z, n=16 * step)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    after = parts()
    asked = {part.name for part in (*objective.latents, *objective.regularisers)}
    assert set(after) == {"denoising"} | asked
    for key, value in after.items():
        least = 0.2 if key in ("denoising", "token", "whole", "code") else 0.1
        if key == "whole" and objective.latent("whole").tap is None:
            least = 0.0  # p(z) of three equally likely kinds is all there is to learn
        assert value < before[key] - least * abs(before[key]), (key, before, after)


def test_presets_name_their_latents_and_reveal_them_as_they_say() -> None:
    process = Interpolant()
    assert presets.none(process).latents == ()
    for objective, reveals in [
        (presets.repa(process, TOKEN), [Uniform()]),
        (presets.reed(process, [TOKEN, WHOLE]), [Uniform(), Uniform()]),
        (presets.cutoff(process, TOKEN, 0.2, 0.7), [Cutoff(0.2, 0.7)]),
        (presets.beta(process, TOKEN, 2.0, 1.0), [Beta(2.0, 1.0)]),
        (presets.rcg(process, TOKEN), [PointMass(1.0)]),
        (presets.rcg_hierarchy(process, [WHOLE, CODE]), [PointMass(1.0), PointMass(1.0)]),
    ]:
        assert [latent.reveal for latent in objective.latents] == reveals
    assert TOKEN.reveal == PointMass(0.5)


def test_rcg_tells_all_and_chains_its_generators() -> None:
    objective = presets.rcg_hierarchy(Interpolant(), [WHOLE, CODE, TOKEN])
    assert all(latent.injection == "explicit" and latent.tap is None for latent in objective.latents)
    assert [latent.given for latent in objective.latents] == [(), ("whole",), ("whole", "code")]
    assert [type(latent.head) for latent in objective.latents] == [Categorical, Flow, Flow]
    assert isinstance(objective.coupling, Nested)


def test_a_label_probe_asks_for_classes() -> None:
    with pytest.raises(InputError, match="has the head VonMisesFisher; give it Categorical"):
        presets.label_probe(Interpolant(), TOKEN)


def test_haste_stops_for_good_and_skips_encoder_and_projector() -> None:
    objective, network = presets.haste(Interpolant(), TOKEN, stop=100), Network(Interpolant())
    x_0, z = batch("haste", Interpolant(), range(4))
    ran: list[str] = []
    objective.readouts["token"].projector.register_forward_hook(lambda *_: ran.append("projector"))

    def encode() -> dict[str, Representation]:
        ran.append("encoder")
        return z

    for n, expected in ((0, ["encoder", "projector"]), (99, ["encoder", "projector"]), (100, []), (10**6, [])):
        ran.clear()
        loss = objective(network, x_0, NoiseSource(0, range(4)), z=encode, n=n)
        assert ran == expected
        assert bool(loss.alignment) is bool(expected)


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
    process, preset = Interpolant(), PRESETS[name]
    network = preset.denoiser(process)

    def listen(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        seen.append(inputs[2])

    network.register_forward_pre_hook(listen, with_kwargs=True)
    x_0, z = batch(name, process, range(4))
    preset.build(process, condition_dropout=dropout)(network, x_0, NoiseSource(0, range(4)), z=z, c="class")
    assert set(seen) == {"null"}

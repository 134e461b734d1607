"""Where samplers get z from a trained model: its readouts, under the null token, with what else is revealed."""

from typing import Any, Literal

import pytest
import torch
from reed_core.coupling import Nested
from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.head import Categorical, Gaussian
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant
from reed_core.reveal import PointMass, Uniform
from reed_core.sample import (
    ReadoutSource,
    RepresentationGuidance,
    SelfRevealed,
    WithLatents,
    draw_latents,
    integrate,
    reveal_ancestral,
)
from torch import Tensor, nn

PROCESS = Interpolant()


class Network(nn.Module):
    """Sees x, the time, and both latents where they are shown; its trunk lies upstream of them."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 8)
        self.joined = nn.Linear(8, 8)
        self.out = nn.Linear(8, 2)
        self.calls: list[Any] = []

    def forward(self, x: Tensor, t: Tensor, c: Any = None, z: dict[str, Revealed] | None = None) -> Tensor:
        self.calls.append(z)
        h = torch.tanh(self.trunk(torch.cat([x, t.to(x)[:, None, None].expand_as(x[..., :1])], -1)))
        for told in (z or {}).values():
            shown = torch.ones(len(x), dtype=torch.bool) if told.shown is None else told.shown
            value = told.z.float().reshape(len(x), -1).sum(1)
            h = h + torch.where(shown, value, 0.0)[:, None, None]
        return self.out(self.joined(h))


def coarse(tap: str | None = "trunk", head: Any = None, **more: Any) -> Latent:
    """A class of the whole sample."""
    size = 8 if tap else 0
    return Latent("coarse", tap, size, 3, head or Categorical(), level="global", injection="explicit", **more)


def fine(tap: str = "trunk", **more: Any) -> Latent:
    """A vector of every element, which sees the class."""
    return Latent("fine", tap, 8, 2, Gaussian(0.1), given=("coarse",), injection="explicit", **more)


def built(head_pass: Literal["shared", "null"] = "shared", **more: Any) -> tuple[Objective, Network]:
    torch.manual_seed(0)
    latents = [coarse(reveal=PointMass(1.0)), fine(**more)]
    return Objective(PROCESS, latents, coupling=Nested(), head_pass=head_pass), Network()


def noisy(count: int = 3, length: int = 4) -> tuple[Tensor, NoiseSource]:
    noise = NoiseSource(0, range(count))
    return PROCESS.prior(torch.zeros(count, length, 2), noise), noise


def test_a_draw_is_that_of_the_readout_at_the_tapped_state() -> None:
    objective, network = built()
    x, _ = noisy()
    t, mask = torch.rand(3), torch.tensor([[True] * 4, [True, False, False, False], [True, True, True, False]])
    revealed = {"coarse": Revealed(torch.tensor([0, 2, 1]), None, torch.tensor([True, False, True]))}
    source = ReadoutSource(objective, network)
    drawn = source("fine", x, t, None, revealed, NoiseSource(4, range(3)), mask)
    hidden = objective.hidden(network, ["fine"], x, t)["fine"]
    z = objective.readouts["fine"].sample(hidden, NoiseSource(4, range(3)), mask, revealed)
    assert torch.equal(drawn.z, z)
    assert drawn.mask is not None
    assert torch.equal(drawn.mask, mask)
    likely = ReadoutSource(objective, network, draw=False)("fine", x, t, None, revealed, NoiseSource(4, range(3)), mask)
    assert torch.equal(likely.z, objective.readouts["fine"].predict(hidden, mask, revealed))
    assert source("coarse", x, t, None, {}, NoiseSource(4, range(3)), mask).mask is None


@pytest.mark.parametrize("head_pass", ["shared", "null"])
def test_heads_are_asked_as_they_were_trained(head_pass: Literal["shared", "null"]) -> None:
    """With a second pass of their own, heads see no latent but those they are given; tapped behind the injection."""
    objective, network = built(head_pass, tap="joined")
    x, noise = noisy()
    own = Revealed(torch.randn(3, 4, 2), None, torch.tensor([True, False, False]))  # other samples of the batch have it
    told = {"coarse": Revealed(torch.tensor([0, 2, 1])), "fine": own}
    ReadoutSource(objective, network)("fine", x, torch.rand(3), None, told, noise, None)
    assert [z and sorted(z) for z in network.calls] == [None if head_pass == "null" else ["coarse"]]


def test_a_trained_objective_is_sampled_in_one_call() -> None:
    objective, network = built(reveal=Uniform())
    x, noise = noisy(5)
    drawn = reveal_ancestral(
        objective.process,
        network,
        ReadoutSource(objective, network),
        objective.latents,
        x,
        8,
        noise,
        coupling=objective.coupling,
    )
    assert drawn.x.shape == x.shape
    assert drawn.z["coarse"].z.shape == (5,)
    assert drawn.z["fine"].z.shape == (5, 4, 2)
    assert drawn.evaluations == len(network.calls)
    assert bool((drawn.tau[:, 0] == 1).all())
    last = network.calls[-1]
    assert bool(last["fine"].shown.all())
    assert torch.equal(last["fine"].z, drawn.z["fine"].z)
    known = {"coarse": Representation(torch.tensor([0, 1, 2, 0, 1]))}
    given = reveal_ancestral(
        PROCESS, network, ReadoutSource(objective, network), objective.latents, x, 8, noise, known=known
    )
    assert torch.equal(given.z["coarse"].z, known["coarse"].z)


def test_guidance_serves_a_sampler_that_reveals() -> None:
    objective, network = built()
    x, noise = noisy(2)
    guided = RepresentationGuidance(network, None, 1.0, 2.0)
    drawn = reveal_ancestral(PROCESS, guided, ReadoutSource(objective, network), objective.latents, x, 3, noise)
    assert bool(drawn.x.isfinite().all())
    assert any(z is not None and "coarse" in z for z in network.calls)


@pytest.mark.parametrize("head", [Categorical(), Flow(8, 1, 2)], ids=["classes", "flow"])
def test_two_stages_draw_z_without_the_network(head: Any) -> None:
    torch.manual_seed(0)
    latent = coarse(None, head, reveal=PointMass(1.0))
    objective, network = Objective(PROCESS, [latent]), Network()
    x, noise = noisy()
    z = draw_latents(PROCESS, ReadoutSource(objective, network), objective.latents, x, noise)
    assert network.calls == []
    assert z["coarse"].z.shape == ((3,) if isinstance(head, Categorical) else (3, 3))
    samples = integrate(PROCESS, WithLatents(network, z), x, 2)
    assert samples.shape == x.shape
    assert all(told["coarse"].shown is None for told in network.calls)
    noise = NoiseSource(0, [2])
    alone = draw_latents(
        PROCESS, ReadoutSource(objective, network), objective.latents, PROCESS.prior(x[2:], noise), noise
    )
    torch.testing.assert_close(alone["coarse"].z[0], z["coarse"].z[2])


def test_a_token_latent_without_a_tap_has_the_elements_of_x() -> None:
    latent = Latent("parts", None, 0, 2, Gaussian(), reveal=PointMass(1.0))
    objective, (x, noise) = Objective(PROCESS, [latent]), noisy()
    for draw in (True, False):
        z = ReadoutSource(objective, Network(), draw)("parts", x, torch.ones(3), None, {}, noise, None).z
        assert z.shape == (3, 4, 2)
    pairs = Latent("pairs", None, 0, 2, Gaussian(), level="pair", reveal=PointMass(1.0))
    with pytest.raises(InputError, match="give it a tap"):
        ReadoutSource(Objective(PROCESS, [pairs]), Network())("pairs", x, torch.ones(3), None, {}, noise, None)
    with pytest.raises(InputError, match="no latent 'w'"):
        ReadoutSource(objective, Network())("w", x, torch.ones(3), None, {}, noise, None)


def test_a_model_may_reveal_its_own_latents_at_every_step() -> None:
    objective, network = built()
    x, noise = noisy()
    source = ReadoutSource(objective, network, draw=False)
    samples = integrate(PROCESS, SelfRevealed(network, source, ("coarse", "fine"), noise), x, 3, method="euler")
    assert samples.shape == x.shape
    assert len(network.calls) == 4 * 3
    assert sorted(network.calls[-1]) == ["coarse", "fine"]

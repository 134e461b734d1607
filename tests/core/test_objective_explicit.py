"""Explicit latents: who is told what, when (THEORY D14, section 2), and heads that see other latents."""

from typing import Any

import pytest
import torch
from reed_core.coupling import Independent, Nested, Sampled
from reed_core.errors import InputError
from reed_core.generator import Flow
from reed_core.head import Categorical, Gaussian
from reed_core.latent import Latent, Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Interpolant, Masked, Product
from reed_core.regulariser import Dispersive
from reed_core.reveal import Beta, Cutoff, PointMass, RevealDensity, Uniform
from torch import Tensor, nn

B = 4000


class Told(nn.Module):
    """A network that takes z, and remembers how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late = nn.Linear(2, 6), nn.Linear(6, 2)
        self.from_z = nn.Linear(3, 6)
        self.null = nn.Parameter(torch.ones(6))
        self.calls: list[dict[str, Revealed] | None] = []
        self.times: list[Tensor] = []

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None, z: dict[str, Revealed] | None = None) -> Tensor:
        self.calls.append(z)
        self.times.append(t)
        hidden = torch.tanh(self.early(x_t) + t[:, None])
        for value in (z or {}).values():
            known = torch.zeros(len(x_t), dtype=torch.bool) if value.shown is None else value.shown
            hidden = hidden + torch.where(known[:, None], self.from_z(value.z.float()), self.null)
        return self.late(hidden)


def latent(name: str, reveal: RevealDensity, **more: Any) -> Latent:
    settings: dict[str, Any] = {"head": Gaussian(0.5), "level": "global", "hidden": 8, "layers": 2} | more
    tap = settings.pop("tap", "early")
    return Latent(name, tap, 0 if tap is None else 6, 3, injection="explicit", reveal=reveal, **settings)


def batch(count: int = B) -> tuple[Tensor, dict[str, Representation]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(count, 2, generator=generator)
    return x, {name: Representation(torch.randn(count, 3, generator=generator)) for name in ("first", "second")}


@pytest.mark.parametrize(
    "reveal", [Uniform(), Beta(2.0, 2.0), Cutoff(0.2, 0.6), PointMass(0.5), PointMass(1.0)], ids=str
)
def test_z_is_shown_with_the_probability_of_survival(reveal: RevealDensity) -> None:
    x, z = batch()
    question = Objective(Interpolant(), [latent("first", reveal)]).draw(x, NoiseSource(0, range(B)), z=z)
    assert question.told is not None
    shown, t = question.told["first"].shown, question.corrupted.t
    assert shown is not None
    for low in torch.arange(10) / 10:
        inside = (t >= low) & (t < low + 0.1)
        expected = reveal.survival(t[inside]).double()
        spread = float((expected * (1 - expected)).sum().sqrt()) / int(inside.sum())
        assert abs(float(shown[inside].double().mean() - expected.mean())) <= 4 * spread + 1e-9


def test_nested_latents_are_shown_as_prefixes_and_independent_ones_are_not() -> None:
    x, z = batch()
    latents = [latent("first", Beta(2.0, 1.0)), latent("second", Uniform())]
    for coupling, only_prefixes in ((Nested(), True), (Independent(), False)):
        question = Objective(Interpolant(), latents, coupling=coupling).draw(x, NoiseSource(0, range(B)), z=z)
        assert question.told is not None
        first, second = question.told["first"].shown, question.told["second"].shown
        assert first is not None
        assert second is not None
        assert bool((second & ~first).any()) is not only_prefixes
        assert bool((first & ~second).any())


def test_the_kept_loss_is_the_convex_combination_of_told_and_untold() -> None:
    """E over `shown` of the loss = (1-A) l_u + A l_c (THEORY D14), here for one x_t repeated."""
    torch.manual_seed(0)
    network, objective = Told(), Objective(Interpolant(), [latent("first", Uniform())])
    x, z = batch(1)
    x, value = x.expand(B, -1), {"first": Representation(z["first"].z.expand(B, -1))}
    question = objective.draw(x, NoiseSource(0, range(B)), z=value)
    corrupted, told = question.corrupted, question.told
    assert told is not None
    shown = told["first"].shown
    assert shown is not None
    with torch.no_grad():
        loss = objective.loss(network, question).denoising
        losses = []
        for flag in (False, True):
            everywhere = {"first": Revealed(value["first"].z, None, torch.full((B,), flag))}
            losses.append(objective.process.loss(network(corrupted.x_t, corrupted.t, None, everywhere), corrupted))
    assert torch.equal(loss, torch.where(shown, losses[1], losses[0]))
    A = 1 - corrupted.t
    difference = loss - ((1 - A) * losses[0] + A * losses[1])
    assert abs(float(difference.mean())) <= 4 * float(difference.std()) / B**0.5
    assert float((losses[1] - losses[0]).abs().mean()) > 0.05


def test_a_denoiser_is_told_even_when_alignment_is_off() -> None:
    x, z = batch(8)
    network = Told()
    objective = Objective(Interpolant(), [latent("first", Uniform(), weight=0.0)])
    loss = objective(network, x, NoiseSource(0, range(8)), z=z)
    assert loss.alignment == {}
    assert network.calls[0] is not None
    with pytest.raises(InputError, match="no representation for latent first"):
        objective(network, x, NoiseSource(0, range(8)))


def test_heads_read_a_second_pass_without_z_when_asked_to() -> None:
    x, z = batch(8)
    network = Told()
    objective = Objective(Interpolant(), [latent("first", Uniform())], head_pass="null")
    objective(network, x, NoiseSource(0, range(8)), z=z)
    assert [call is None for call in network.calls] == [False, True]
    assert torch.equal(network.times[0], network.times[1])


def test_a_latent_without_a_tap_costs_no_pass_and_learns_its_marginal() -> None:
    torch.manual_seed(0)
    x, _ = batch(512)
    labels = torch.randint(3, (512,), generator=torch.Generator().manual_seed(1)).clamp(max=1)  # 1/3, 2/3, 0
    z = {"label": Representation(labels)}
    objective = Objective(
        Interpolant(), [Latent("label", None, 0, 3, Categorical(), "global", reveal=PointMass(1.0), layers=1)]
    )
    network = Told()
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.1)
    for _ in range(60):
        loss = objective(network, x, NoiseSource(0, range(512)), z=z)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert len(network.calls) == 60
    truth = torch.distributions.Categorical(probs=torch.bincount(labels, minlength=3) / 512).entropy()
    assert float(loss.alignment["label"].detach().mean()) == pytest.approx(float(truth), abs=0.02)


def test_heads_see_the_latents_they_are_given_and_only_when_revealed() -> None:
    """Two at t = 1: the first listed comes first, so only the second head sees the other."""
    x, z = batch(16)
    latents = [
        latent("first", PointMass(1.0), tap=None, head=Flow(hidden=8, layers=1)),
        latent("second", PointMass(1.0), tap=None, head=Flow(hidden=8, layers=1), given=("first",)),
    ]
    question = Objective(Interpolant(), latents, coupling=Nested()).draw(x, NoiseSource(0, range(16)), z=z)
    first, second = question.asked
    assert first.given == {}
    shown = second.given["first"].shown
    assert shown is not None
    assert bool(shown.all())
    backwards = [latents[1], latents[0]]
    question = Objective(Interpolant(), backwards).draw(x, NoiseSource(0, range(16)), z=z)
    shown = question.asked[0].given["first"].shown
    assert shown is not None
    assert not bool(shown.any())


@pytest.mark.parametrize("coupling", [Independent(), Nested()], ids=lambda coupling: type(coupling).__name__)
def test_what_a_head_is_given_follows_the_coupling(coupling: Any) -> None:
    """Given tau_2 = t: independent, z_1 is revealed with A^1(t); nested (A^1 >= A^2), always."""
    x, z = batch()
    latents = [latent("first", Beta(2.0, 1.0)), latent("second", Uniform(), given=("first",))]
    question = Objective(Interpolant(), latents, coupling=coupling).draw(x, NoiseSource(0, range(B)), z=z)
    shown = question.asked[1].given["first"].shown
    assert shown is not None
    t = question.corrupted.t
    expected = torch.ones_like(t) if isinstance(coupling, Nested) else 1 - t.square()
    for low in torch.arange(5) / 5:
        inside = (t >= low) & (t < low + 0.2)
        assert float(shown[inside].float().mean()) == pytest.approx(float(expected[inside].mean()), abs=0.06)


def test_a_sampler_of_times_asks_each_conditional_head_at_its_own_time() -> None:
    x, z = batch(64)

    def draw(noise: NoiseSource) -> Tensor:
        u = noise.uniform(())
        return torch.stack([u, 1 - u], -1)

    latents = [latent("first", Uniform()), latent("second", Uniform(), given=("first",))]
    objective = Objective(Interpolant(), latents, coupling=Sampled(draw))
    question = objective.draw(x, NoiseSource(0, range(64)), z=z)
    own = question.asked[1]
    assert own.corrupted is not None
    shown = own.given["first"].shown
    assert shown is not None
    assert torch.equal(shown, (1 - own.corrupted.t) > own.corrupted.t)
    network = Told()
    objective.loss(network, question)
    assert torch.equal(network.times[1], own.corrupted.t)


def test_fields_that_diffuse_together_are_one_batch() -> None:
    class Joint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place, self.token = nn.Linear(2, 8), nn.Embedding(4, 8)
            self.to_place, self.to_token = nn.Linear(8, 2), nn.Linear(8, 3)

        def forward(self, x_t: dict[str, Tensor], t: Tensor, c: Any = None) -> dict[str, Tensor]:
            hidden = torch.tanh(self.place(x_t["place"]) + self.token(x_t["token"]) + t[:, None, None])
            return {"place": self.to_place(hidden), "token": self.to_token(hidden)}

    mask = torch.tensor([[True, True, False], [True, True, True]])
    x_0 = {"place": torch.randn(2, 3, 2), "token": torch.randint(3, (2, 3))}
    objective = Objective(
        Product({"place": Interpolant(), "token": Masked(3, 3)}),
        [Latent("kind", "place", 8, 4, level="global")],
        regularisers=[Dispersive("place")],
    )
    z = {"kind": Representation(torch.randn(2, 4))}
    loss = objective(Joint(), x_0, NoiseSource(0, range(2)), z=z, mask=mask)
    assert loss.denoising.shape == (2,)
    assert set(loss.alignment) == {"kind"}
    assert set(loss.regularisation) == {"dispersive"}
    loss.total.backward()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"given": ("nobody",)}, "latent 'first' is given nobody"),
        ({"given": ("first",)}, "latent 'first' is given first"),
    ],
)
def test_a_latent_given_what_does_not_exist_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Objective(Interpolant(), [latent("first", Uniform(), **change)])


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(InputError, match="head_pass 'both' is unknown"):
        Objective(Interpolant(), head_pass="both")
    with pytest.raises(InputError, match="reveal it at t = 1"):
        latent("first", Uniform(), tap=None)
    with pytest.raises(InputError, match="no latent 'third'; there are first"):
        Objective(Interpolant(), [latent("first", Uniform())]).latent("third")

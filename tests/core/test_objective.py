"""The objective against a slow loop over samples, each alone and without padding."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from reed_core.curriculum import Curriculum, Schedule
from reed_core.errors import InputError
from reed_core.head import Categorical, Gaussian, VonMisesFisher
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import ConditionDropout, Loss, Objective
from reed_core.process import Interpolant, Masked, Process
from reed_core.reveal import PointMass, RevealDensity, Uniform
from torch import Tensor, nn

LENGTHS = (5, 1, 3, 4)
POSITIONS = (40, 41, 7, 90)
NULL = 3


@dataclass(frozen=True)
class Falling(RevealDensity):
    """alpha(t) = 2 (1 - t): a density that is not flat."""

    def density(self, t: Tensor) -> Tensor:
        return 2 * (1 - t)

    def survival(self, t: Tensor) -> Tensor:
        return (1 - t) ** 2

    def quantile(self, u: Tensor) -> Tensor:
        return 1 - (1 - u).sqrt()


class Pairs(nn.Module):
    """A state of every ordered pair, as the second of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 6), nn.Linear(8, 6)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return h, torch.tanh(self.left(h)[:, :, None] + self.right(h)[:, None])


class Network(nn.Module):
    """Elementwise and pairwise, so that a padded batch is its samples alone. c is a class of each sample."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        tokens = isinstance(process, Masked)
        self.embed = nn.Embedding(8, 8) if tokens else nn.Linear(3, 8)
        self.condition = nn.Embedding(4, 8)
        self.block = nn.Linear(8, 8)
        self.pairs = Pairs()
        self.out = nn.Linear(8, process.num_tokens if isinstance(process, Masked) else 3)
        self.times: list[Tensor] = []
        self.conditions: list[Any] = []
        self.hooks = 0

    def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
        self.times.append(t)
        self.conditions.append(c)
        self.hooks += sum(len(module._forward_hooks) for module in self.modules())
        h = self.embed(x_t) + t[:, None, None]
        if isinstance(c, Tensor):
            h = h + self.condition(c)[:, None]
        h = torch.tanh(self.block(torch.tanh(h)))
        return self.out(self.pairs(h)[0])


PROCESSES: list[Process] = [Interpolant(), Interpolant("trig", "x0"), Masked(4, 5), Masked(4, 5, "flat")]
LATENTS = [
    Latent("cosine", "block", 8, 5, VonMisesFisher(2.0), weight=0.7, reveal=Falling(), hidden=7),
    Latent("whole", "pairs", 8, 2, Gaussian(0.5), "global", weight=0.3, hidden=7, layers=2),
    Latent("edge", "pairs:1", 6, 3, Categorical(), "pair", weight=1.5, hidden=7, layers=1),
    Latent("late", "block", 8, 4, Categorical(), weight=0.2, reveal=PointMass(0.25), hidden=7),
]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=str)


@dataclass
class Problem:
    """A padded batch with all its latents."""

    network: Network
    x_0: Tensor
    mask: Tensor
    z: dict[str, Representation]
    c: Tensor


def problem(process: Process, seed: int = 0, junk: float = 0.0) -> Problem:
    """The same batch for every `junk`, which is what lies in the padding."""
    torch.manual_seed(seed)
    network = Network(process)
    mask = torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]
    both = mask[:, :, None] & mask[:, None]
    x_0 = torch.randint(4, (4, 5)) if isinstance(process, Masked) else torch.randn(4, 5, 3)
    values = {
        "cosine": Representation(torch.randn(4, 5, 5)),
        "whole": Representation(torch.randn(4, 2)),
        "edge": Representation(torch.randint(3, (4, 5, 5)), both),
        "late": Representation(torch.randint(4, (4, 5)), mask & (torch.rand(4, 5) < 0.7)),
    }
    x_0[~mask] = int(junk)
    values["cosine"].z[~mask] = junk
    values["edge"].z[~both] = int(junk) % 3
    values["late"].z[~mask] = -1 if junk else 0
    return Problem(network, x_0, mask, values, torch.tensor([0, 1, 2, 0]))


def slow_loop(
    process: Process, latents: list[Latent], objective: Objective, given: Problem, seed: int
) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
    """Denoising loss and alignment energies of each sample, from the definitions."""
    denoising: list[Tensor] = []
    alignment: dict[str, list[Tensor]] = {latent.name: [] for latent in latents}
    net = given.network
    for i, length in enumerate(LENGTHS):
        noise = NoiseSource(seed, [POSITIONS[i]])
        x_0, c = given.x_0[i : i + 1, :length], given.c[i : i + 1]

        def states(x_t: Tensor, t: Tensor, c: Tensor = c) -> dict[str, Tensor]:
            h = torch.tanh(net.embed(x_t) + t[:, None, None] + net.condition(c)[:, None])
            block = net.block(h)
            node, pair = net.pairs(torch.tanh(block))
            return {"block": block, "pairs": node, "pairs:1": pair, "out": net.out(node)}

        t = process.sample_time(noise)
        corrupted = process.corrupt(x_0, t, noise)
        hidden = states(corrupted.x_t, t)
        denoising.append(process.loss(hidden["out"], corrupted)[0])
        for latent in latents:
            reveal = latent.reveal
            factor, state = 1.0, hidden
            if isinstance(reveal, PointMass):
                noise.uniform(())
                tau = torch.tensor([reveal.at])
                state = states(process.corrupt(x_0, tau, noise).x_t, tau)
            else:
                factor = float(reveal.density(t))
            value = given.z[latent.name]
            project, read = objective.readouts[latent.name].projector, state[latent.tap][0]
            if latent.level == "global":
                energies = [latent.head.energy(project(read.mean(0))[None], value.z[i][None])[0]]
            else:
                elements = torch.cartesian_prod(*[torch.arange(length)] * (2 if latent.level == "pair" else 1))
                energies = [
                    latent.head.energy(project(read[at])[None], value.z[i][at][None])[0]
                    for at in (tuple(index) for index in elements.reshape(length ** (read.ndim - 1), -1).tolist())
                    if value.mask is None or bool(value.mask[i][at])
                ]
            zero = torch.zeros(())
            alignment[latent.name].append(factor * (torch.stack(energies).mean() if energies else zero))
    return denoising, alignment


def loss_of(objective: Objective, given: Problem, seed: int = 11, **more: Any) -> Loss:
    arguments = {"z": given.z, "c": given.c, "mask": given.mask, **more}
    return objective(given.network, given.x_0, NoiseSource(seed, POSITIONS), **arguments)


@every_process
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_a_slow_loop(process: Process, weighted: bool) -> None:
    given = problem(process)
    curriculum = Curriculum(Schedule(decay="linear", end=10), Schedule(warmup=5))
    objective = Objective(process, LATENTS, curriculum)
    weight = torch.tensor([1.0, 0.0, 2.5, 0.3]) if weighted else None
    loss = loss_of(objective, given, weight=weight, n=4)
    denoising, alignment = slow_loop(process, LATENTS, objective, given, 11)
    share = torch.full((4,), 0.25) if weight is None else weight / weight.sum()
    total = sum(share[i] * 0.8 * denoising[i] for i in range(4))
    total += sum(share[i] * 0.6 * latent.weight * alignment[latent.name][i] for latent in LATENTS for i in range(4))
    torch.testing.assert_close(loss.denoising, torch.stack(denoising))
    assert list(loss.alignment) == ["cosine", "whole", "edge", "late"]
    for name, values in alignment.items():
        torch.testing.assert_close(loss.alignment[name], torch.stack(values))
    torch.testing.assert_close(loss.total, total)
    assert torch.equal(loss.t, process.sample_time(NoiseSource(11, POSITIONS)))  # type: ignore[arg-type]


@every_process
def test_gradients_are_those_of_the_slow_loop(process: Process) -> None:
    given = problem(process)
    objective = Objective(process, LATENTS)
    parameters = [*given.network.parameters(), *objective.parameters()]
    fast = torch.autograd.grad(loss_of(objective, given).total, parameters)
    denoising, alignment = slow_loop(process, LATENTS, objective, given, 11)
    total = torch.stack(denoising).mean()
    for latent in LATENTS:
        total = total + latent.weight * torch.stack(alignment[latent.name]).mean()
    for one, other in zip(fast, torch.autograd.grad(total, parameters), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


@every_process
def test_padding_never_touches_loss_or_gradient(process: Process) -> None:
    torch.manual_seed(5)
    objective = Objective(process, LATENTS)
    results = []
    for junk in (0.0, 7.0, 3.0):
        given = problem(process, junk=junk)
        loss = loss_of(objective, given)
        parameters = [*given.network.parameters(), *objective.parameters()]
        results.append([loss.denoising, *loss.alignment.values(), *torch.autograd.grad(loss.total, parameters)])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert torch.equal(one, other)


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    calls: list[int] = []
    handles = [part.projector.register_forward_hook(lambda *_: calls.append(1)) for part in module.children()]
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("off", ["curriculum", "weights", "no latents"])
def test_alignment_that_is_off_costs_nothing(off: str) -> None:
    """No encoder, no projector, no hook, no second forward pass; and any callable will do as a denoiser."""

    def encode() -> dict[str, Representation]:
        raise AssertionError("the encoder was called")

    given = problem(PROCESSES[0])
    latents = [] if off == "no latents" else LATENTS
    latents = [replace(latent, weight=0.0) for latent in latents] if off == "weights" else latents
    alignment = Schedule(decay="stop", end=10) if off == "curriculum" else Schedule()
    objective = Objective(PROCESSES[0], latents, Curriculum(alignment=alignment))
    with counted(objective.readouts) as calls:
        loss = loss_of(objective, given, z=encode, n=10)
    assert (calls, given.network.hooks, len(given.network.times)) == ([], 0, 1)
    assert loss.alignment == {}
    plain = loss_of(Objective(PROCESSES[0]), given, z=None)
    assert torch.equal(loss.total, plain.total)
    assert objective(lambda x, t, c: x, given.x_0, NoiseSource(0, POSITIONS), n=10).total.isfinite()
    if off == "curriculum":
        with pytest.raises(AssertionError, match="the encoder was called"):
            loss_of(objective, given, z=encode, n=9)


def test_alignment_that_is_on_calls_the_encoder_once_and_each_projector_once() -> None:
    given = problem(PROCESSES[0])
    objective = Objective(PROCESSES[0], LATENTS)
    encoded: list[int] = []

    def encode() -> dict[str, Representation]:
        encoded.append(1)
        return given.z

    with counted(objective.readouts) as calls:
        loss = loss_of(objective, given, z=encode)
    assert (len(encoded), len(calls), len(given.network.times)) == (1, 4, 2)
    assert torch.equal(loss.total, loss_of(objective, given).total)
    assert sum(len(module._forward_hooks) for module in given.network.modules()) == 0


def test_a_latent_of_weight_zero_is_off_alone() -> None:
    given = problem(PROCESSES[0])
    latents = [replace(LATENTS[0], weight=0.0), *LATENTS[1:3]]
    objective = Objective(PROCESSES[0], latents)
    loss = loss_of(objective, given, z={name: given.z[name] for name in ("whole", "edge")})
    assert list(loss.alignment) == ["whole", "edge"]
    assert len(given.network.times) == 1


def test_the_curriculum_scales_the_two_parts() -> None:
    given = problem(PROCESSES[0])
    rise, fall = Schedule(start=2, warmup=4), Schedule(decay="cosine", end=8)
    objective = Objective(PROCESSES[0], LATENTS[:2], Curriculum(fall, rise))
    base = loss_of(objective, given, n=0)
    aligned = sum(latent.weight * base.alignment[latent.name].mean() for latent in LATENTS[:2])
    for n in (0, 1, 3.5, 6, 7, 100):
        total = loss_of(objective, given, n=n).total
        torch.testing.assert_close(total, rise(n) * base.denoising.mean() + fall(n) * aligned)


def test_a_point_mass_is_asked_at_its_own_time() -> None:
    """Within the times of the process: 0 stands for its first step, 1 for its last."""
    given, ends = problem(PROCESSES[0]), (0.0, 0.25, 1.0)
    point = [replace(LATENTS[3], name=f"at{number}", reveal=PointMass(at)) for number, at in enumerate(ends)]
    objective = Objective(PROCESSES[0], [*point, LATENTS[0]])
    values = {**given.z, **{latent.name: given.z["late"] for latent in point}}
    loss = loss_of(objective, given, z=values)
    times = given.network.times
    assert len(times) == 4
    assert torch.equal(times[0], loss.t)  # type: ignore[arg-type]
    for t, at in zip(times[1:], ends, strict=True):
        assert torch.equal(t, torch.full((4,), at).clamp(PROCESSES[0].t_min, PROCESSES[0].t_max))


@pytest.mark.parametrize("reveal", [Uniform(), Falling()], ids=str)
def test_a_spread_reveal_weighs_with_its_density(reveal: RevealDensity) -> None:
    given = problem(PROCESSES[0])
    torch.manual_seed(1)
    one = Objective(PROCESSES[0], [replace(LATENTS[0], reveal=reveal)])
    torch.manual_seed(1)
    flat = Objective(PROCESSES[0], [replace(LATENTS[0], reveal=Uniform())])
    weighed, plain = loss_of(one, given), loss_of(flat, given)
    assert plain.t is not None
    torch.testing.assert_close(weighed.alignment["cosine"], plain.alignment["cosine"] * reveal.density(plain.t))


def test_no_gradient_reaches_z() -> None:
    given = problem(PROCESSES[0])
    objective = Objective(PROCESSES[0], LATENTS[:2])
    z = {name: Representation(given.z[name].z.clone().requires_grad_()) for name in ("cosine", "whole")}
    loss_of(objective, given, z=z).total.backward()
    assert all(value.z.grad is None for value in z.values())
    assert all(parameter.grad is not None for parameter in objective.parameters())


def test_a_sample_whose_latent_is_unknown_costs_nothing() -> None:
    """At every level; a global latent is unknown for whole samples."""
    given = problem(PROCESSES[0])
    known = torch.tensor([True, False, True, False])
    z = {
        "cosine": Representation(given.z["cosine"].z, given.mask & known[:, None]),
        "whole": Representation(given.z["whole"].z, known),
        "edge": Representation(given.z["edge"].z, given.z["edge"].mask & known[:, None, None]),  # type: ignore[operator]
    }
    objective = Objective(PROCESSES[0], LATENTS[:3])
    some, all_ = loss_of(objective, given, z=z), loss_of(objective, given)
    for name in z:
        assert torch.equal(some.alignment[name], torch.where(known, all_.alignment[name], 0.0))


def test_any_condition_passes_through_untouched() -> None:
    given = problem(PROCESSES[0])
    condition = object()
    loss_of(Objective(PROCESSES[0], LATENTS), given, c=condition)
    assert len(given.network.conditions) == 2
    assert all(c is condition for c in given.network.conditions)


def replace_class(c: Tensor, dropped: Tensor) -> Tensor:
    return torch.where(dropped, NULL, c)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_conditions_are_dropped_at_their_rate(probability: float) -> None:
    count = 2000
    seen: list[Tensor] = []

    def denoiser(x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        seen.append(c)
        return x_t

    objective = Objective(Interpolant(), condition_dropout=ConditionDropout(probability, replace_class))
    c = torch.arange(count) % 3
    objective(denoiser, torch.zeros(count, 1), NoiseSource(0, range(count)), c=c)
    dropped = seen[0] == NULL
    assert torch.equal(seen[0][~dropped], c[~dropped])
    assert abs(float(dropped.double().mean()) - probability) <= 4 * (probability * (1 - probability) / count) ** 0.5
    objective(denoiser, torch.zeros(7, 1), NoiseSource(0, range(50, 57)), c=c[50:57])
    assert torch.equal(seen[1], seen[0][50:57])


def test_a_dropped_condition_is_the_null_condition_in_every_pass() -> None:
    given = problem(PROCESSES[0])
    torch.manual_seed(1)
    dropping = Objective(PROCESSES[0], LATENTS, condition_dropout=ConditionDropout(1.0, replace_class))
    loss = loss_of(dropping, given)
    assert all(torch.equal(c, torch.full((4,), NULL)) for c in given.network.conditions)
    torch.manual_seed(1)
    never = Objective(PROCESSES[0], LATENTS, condition_dropout=ConditionDropout(0.0, replace_class))
    assert torch.equal(loss.total, loss_of(never, given, c=torch.full((4,), NULL)).total)
    assert not torch.equal(loss.total, loss_of(never, given).total)


def test_weights_of_zero_give_zero() -> None:
    loss = loss_of(Objective(PROCESSES[0], LATENTS), problem(PROCESSES[0]), weight=torch.zeros(4))
    assert loss.total.item() == 0


def test_the_parameters_are_those_of_the_readouts() -> None:
    objective = Objective(PROCESSES[0], LATENTS)
    assert {name.split(".")[1] for name, _ in objective.named_parameters()} == {latent.name for latent in LATENTS}
    assert list(Objective(PROCESSES[0]).parameters()) == []


def without(name: str) -> Callable[[Problem], dict[str, Any]]:
    return lambda given: {"z": {key: value for key, value in given.z.items() if key != name}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda given: {"z": None}, "no representation for latent cosine, whole"),
        (without("whole"), "no representation for latent whole; give one, or a weight of 0"),
        (lambda given: {"z": dict}, "no representation for latent cosine, whole"),
    ],
)
def test_a_missing_representation_is_named(change: Callable[[Problem], dict[str, Any]], said: str) -> None:
    given = problem(PROCESSES[0])
    with pytest.raises(InputError, match=said):
        loss_of(Objective(PROCESSES[0], LATENTS[:2]), given, **change(given))


def test_noise_for_another_number_of_samples_is_refused() -> None:
    """One stream would otherwise be shared by all samples."""
    given = problem(PROCESSES[0])
    with pytest.raises(InputError, match="noise for 1 samples, a batch of 4"):
        Objective(PROCESSES[0])(given.network, given.x_0, NoiseSource(0, [0]))


def test_latents_are_read_from_modules_only() -> None:
    given = problem(PROCESSES[0])
    with pytest.raises(InputError, match="got a function; pass the module itself"):
        Objective(PROCESSES[0], LATENTS[:1])(lambda x, t, c: x, given.x_0, NoiseSource(0, POSITIONS), z=given.z)


@pytest.mark.parametrize(
    "names", [("a", "b", "a"), ("a.b",), ("",), ("type",), ("keys",)], ids=lambda names: " ".join(names) or "empty"
)
def test_names_that_cannot_be_kept_apart_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="name"):
        Objective(PROCESSES[0], [replace(LATENTS[0], name=name) for name in names])


@pytest.mark.parametrize("probability", [-0.1, 1.1])
def test_a_rate_of_dropping_is_a_share(probability: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        ConditionDropout(probability, replace_class)

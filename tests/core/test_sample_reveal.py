"""Reveal-ancestral sampling is exact for every reveal density (THEORY D13); the hybrid with z up front is not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from core.sample_models import (
    MASK,
    Counted,
    ExactStep,
    Jointly,
    PairTable,
    all_masked,
    chi_square,
    critical,
    explicit,
    one_latent,
    random_joint,
    two_latents,
    worst_moment,
)
from reed_core.coupling import Coupling, Independent, Nested, Sampled
from reed_core.errors import InputError
from reed_core.latent import Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Masked
from reed_core.reveal import Beta, Cutoff, PointMass, RevealDensity, Uniform
from reed_core.sample import (
    Hybrid,
    RevealSample,
    WithLatents,
    ancestral,
    cosine_times,
    draw_latents,
    integrate,
    reveal_ancestral,
)
from torch import Tensor

EXACT = ExactStep(t_max=1.0)
BATCH, ELEMENTS = 40, 600  # reveal times belong to samples, and the elements of a sample are independent
REVEALS: list[RevealDensity] = [
    Uniform(),
    Beta(2.0, 1.0),
    Cutoff(0.3, 0.6),
    PointMass(1.0),
    PointMass(0.5),
    PointMass(0.0),
]
ALLOWED = 4.5  # standard errors


def start(model: Jointly, noise: NoiseSource, elements: int = ELEMENTS) -> Tensor:
    return model.process.prior(torch.zeros(len(noise), elements, dtype=torch.float64), noise)


def draw(model: Jointly, reveals: list[RevealDensity], steps: int = 6, seed: int = 0, **more: Any) -> RevealSample:
    noise = NoiseSource(seed, range(BATCH))
    return reveal_ancestral(
        model.process, model, model.source, model.latents(*reveals), start(model, noise), steps, noise, **more
    )


@pytest.mark.parametrize("reveal", REVEALS, ids=str)
def test_data_and_latent_have_their_joint_moments(reveal: RevealDensity) -> None:
    model = one_latent(EXACT)
    drawn = draw(model, [reveal])
    assert worst_moment(model.rows(drawn.x, drawn.z), model.mean, model.covariance) < ALLOWED
    assert drawn.tau.shape == (BATCH, 1)


def together(noise: NoiseSource) -> Tensor:
    """Both latents are revealed at one time."""
    return noise.uniform((1,)).float().expand(-1, 2)


@pytest.mark.parametrize(
    ("coupling", "reveals"),
    [
        (Independent(), [Uniform(), Beta(1.0, 2.0)]),
        (Nested(), [Beta(2.0, 1.0), Uniform()]),
        (Nested(), [PointMass(1.0), PointMass(1.0)]),
        (Independent(), [PointMass(0.2), PointMass(0.9)]),
        (Sampled(together), [Uniform(), Uniform()]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Sampled) else str(value),
)
def test_two_latents_have_their_joint_moments(coupling: Coupling, reveals: list[RevealDensity]) -> None:
    model = two_latents(EXACT)
    drawn = draw(model, reveals, coupling=coupling)
    assert worst_moment(model.rows(drawn.x, drawn.z), model.mean, model.covariance) < ALLOWED


def naive(model: Jointly, survival: Callable[[Tensor], Tensor]) -> float:
    """The worst moment of the p~ chain with z ~ p(z) drawn up front."""
    noise = NoiseSource(1, range(BATCH))
    x = start(model, noise)
    z = draw_latents(model.process, model.source, model.latents(PointMass(1.0)), x, noise)
    samples = integrate(model.process, Hybrid(model, z, {"z": survival}), x, 40)
    return worst_moment(model.rows(samples, z), model.mean, model.covariance)


def test_a_latent_drawn_up_front_biases_the_hybrid_unless_it_is_shown_throughout() -> None:
    model = one_latent(Interpolant())
    assert naive(model, PointMass(1.0).survival) < ALLOWED
    assert naive(model, Uniform().survival) > 10 * ALLOWED


TABLE = PairTable(random_joint((2, 2, 3), seed=3))
PROCESS = Masked(2, MASK)


@pytest.mark.parametrize("reveal", [Uniform(), Beta(2.0, 1.0), PointMass(1.0)], ids=str)
def test_tokens_and_class_have_their_joint_distribution(reveal: RevealDensity) -> None:
    noise = NoiseSource(2, range(BATCH))
    x = all_masked(BATCH, 200)
    drawn = reveal_ancestral(PROCESS, TABLE, TABLE.source, [explicit("z", reveal)], x, 80, noise)
    assert chi_square(TABLE.rows(drawn.x, drawn.z["z"].z), TABLE.joint) < critical(11)


def test_a_class_drawn_up_front_biases_the_hybrid_of_tokens_unless_it_is_shown_throughout() -> None:
    statistic = {}
    for reveal in (Uniform(), PointMass(1.0)):
        noise = NoiseSource(2, range(BATCH))
        x = all_masked(BATCH, 200)
        z = draw_latents(PROCESS, TABLE.source, [explicit("z")], x, noise)
        samples = ancestral(PROCESS, Hybrid(TABLE, z, {"z": reveal.survival}), x, 80, noise)
        statistic[reveal] = chi_square(TABLE.rows(samples, z["z"].z), TABLE.joint)
    assert statistic[PointMass(1.0)] < critical(11)
    assert statistic[Uniform()] > 3 * critical(11)


def test_two_stages_are_a_reveal_at_pure_noise() -> None:
    model = two_latents(EXACT)
    noise = NoiseSource(3, range(BATCH))
    x = start(model, noise)
    z = draw_latents(EXACT, model.source, model.latents(PointMass(1.0), PointMass(1.0)), x, noise)
    samples = ancestral(EXACT, WithLatents(model, z), x, 6, noise)
    assert worst_moment(model.rows(samples, z), model.mean, model.covariance) < ALLOWED


def test_a_known_latent_is_shown_from_the_start_and_kept() -> None:
    model = two_latents(EXACT)
    z = torch.full((BATCH, ELEMENTS, 1), 1.3, dtype=torch.float64)
    denoiser = Counted(model)
    noise = NoiseSource(4, range(BATCH))
    latents = model.latents(Uniform(), Uniform())
    known = {"coarse": Representation(z)}
    drawn = reveal_ancestral(EXACT, denoiser, model.source, latents, start(model, noise), 5, noise, known=known)
    assert torch.equal(drawn.z["coarse"].z, z)
    assert bool((drawn.tau[:, 0] == 1).all())
    assert all(told is not None and told["coarse"].shown is None for told in denoiser.told)
    # x_0 and the fine latent given the coarse one
    rest, other = [0, 2], 1
    gain = model.covariance[rest, other] / model.covariance[other, other]
    mean = model.mean[rest] + gain * (1.3 - model.mean[other])
    covariance = model.covariance[rest][:, rest] - torch.outer(gain, model.covariance[rest, other])
    assert worst_moment(model.rows(drawn.x, drawn.z)[:, rest], mean, covariance) < ALLOWED


# When, and at what cost


def asked_times(
    reveal: RevealDensity, steps: int, tap: str | None = "any", batch: int = 7
) -> tuple[list[float], RevealSample, Counted]:
    model = one_latent(EXACT)
    times: list[float] = []

    def source(name: str, x_t: Tensor, t: Tensor, *rest: Any) -> Representation:
        times.append(float(t[0]))
        return model.source(name, x_t, t, *rest)

    denoiser = Counted(model)
    noise = NoiseSource(0, range(batch))
    drawn = reveal_ancestral(
        EXACT, denoiser, source, [explicit("z", reveal, tap)], start(model, noise, 3), steps, noise
    )
    return times, drawn, denoiser


@pytest.mark.parametrize(
    ("at", "steps", "asked"),
    [(1.0, 4, 1.0), (0.5, 4, 0.5), (0.51, 4, 0.75), (0.3, 10, 0.3), (0.0, 4, 0.25), (0.2, 1, 1.0)],
)
def test_a_latent_is_drawn_before_the_step_that_holds_its_time(at: float, steps: int, asked: float) -> None:
    times, drawn, denoiser = asked_times(PointMass(at), steps)
    assert times == pytest.approx([asked])
    assert drawn.evaluations == steps + 1
    for (_, t, _), told in zip(denoiser.seen, denoiser.told, strict=True):
        assert (told is not None) == (float(t[0]) <= asked + 1e-6)


def test_each_sample_is_revealed_at_its_own_time_and_evaluations_are_counted() -> None:
    steps = 20
    times, drawn, denoiser = asked_times(Uniform(), steps)
    assert len(denoiser.seen) == steps
    assert drawn.evaluations == steps + len(times)
    assert 1 < len(times) <= 7
    for (_, t, _), told in zip(denoiser.seen, denoiser.told, strict=True):
        due = drawn.tau[:, 0] > t - 1 / steps  # all that were revealed in steps up to this one
        shown = torch.zeros(7, dtype=torch.bool) if told is None else told["z"].shown
        assert torch.equal(shown, due | (t <= 1 / steps + 1e-6))


def test_a_latent_without_a_tap_costs_no_evaluation() -> None:
    times, drawn, _ = asked_times(PointMass(1.0), 5, tap=None)
    assert (len(times), drawn.evaluations) == (1, 5)


def test_an_implicit_latent_is_drawn_but_not_shown() -> None:
    model = one_latent(EXACT)
    latent = model.latents(Uniform())[0]
    implicit = type(latent)("z", "any", 1, 1, latent.head, reveal=Uniform())
    noise, denoiser = NoiseSource(5, range(BATCH)), Counted(model)
    drawn = reveal_ancestral(EXACT, denoiser, model.source, [implicit], start(model, noise), 6, noise)
    assert denoiser.told == [None] * 6
    assert worst_moment(drawn.x.flatten()[:, None], model.mean[:1], model.covariance[:1, :1]) < ALLOWED


def test_latents_revealed_together_see_each_other_in_their_order() -> None:
    seen = []
    model = two_latents(EXACT)

    def source(name: str, x_t: Tensor, t: Tensor, c: Any, revealed: Any, *rest: Any) -> Representation:
        seen.append((name, sorted(revealed)))
        return model.source(name, x_t, t, c, revealed, *rest)

    noise = NoiseSource(0, range(3))
    latents = model.latents(PointMass(0.5), PointMass(0.5))
    reveal_ancestral(EXACT, model, source, latents, start(model, noise, 4), 4, noise, coupling=Nested())
    assert seen == [("coarse", []), ("fine", ["coarse"])]


# A sample is its own


def pooled(x_t: Tensor, t: Tensor, c: Any = None, z: dict[str, Revealed] | None = None) -> Tensor:
    """A denoiser that looks at all elements and at z, with a null token (0.3) where it is not shown."""
    told = torch.full((len(x_t), 2), 0.3)
    if z is not None:
        told = torch.where(z["z"].shown[:, None], z["z"].z, told)
    return torch.tanh(x_t + x_t.sum(1, keepdim=True) + told[:, None]) + t[:, None, None]


def pooled_source(
    name: str, x_t: Tensor, t: Tensor, c: Any, revealed: Any, noise: NoiseSource, mask: Any
) -> Representation:
    return Representation(x_t.sum(1) + noise.normal((2,)))


@pytest.mark.parametrize("grid", [None, cosine_times], ids=["uniform", "cosine"])
def test_a_sample_is_its_own_whatever_the_batch_and_the_padding(grid: Any) -> None:
    process, latents = Interpolant(), [explicit("z", Uniform())]
    more = {} if grid is None else {"grid": grid}
    lengths = (4, 1, 3, 2)
    mask = torch.arange(4)[None] < torch.tensor(lengths)[:, None]
    noise = NoiseSource(6, range(20, 24))
    x = process.prior(torch.zeros(4, 4, 2), noise)
    batch = reveal_ancestral(process, pooled, pooled_source, latents, x, 9, noise, mask=mask, **more)
    assert not batch.x[~mask].any()
    for i, length in enumerate(lengths):
        noise = NoiseSource(6, [20 + i])
        x = process.prior(torch.zeros(1, length, 2), noise)
        alone = reveal_ancestral(process, pooled, pooled_source, latents, x, 9, noise, **more)
        torch.testing.assert_close(alone.x[0], batch.x[i, :length])
        torch.testing.assert_close(alone.z["z"].z[0], batch.z["z"].z[i])
        assert torch.equal(alone.tau[0], batch.tau[i])


def test_two_runs_of_one_noise_source_differ() -> None:
    model, noise = one_latent(EXACT), NoiseSource(7, range(2))
    x = start(model, noise, 3)
    first, second = (
        reveal_ancestral(EXACT, model, model.source, model.latents(PointMass(1.0)), x, 2, noise) for _ in range(2)
    )
    assert not torch.equal(first.z["z"].z, second.z["z"].z)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"latents": []}, "at least one latent"),
        ({"known": {"w": Representation(torch.zeros(2, 1))}}, "known w"),
        ({"steps": 0}, "at least 1 step"),
        ({"noise": NoiseSource(0, [0])}, "one stream per sample"),
    ],
)
def test_wrong_arguments_are_refused(more: dict[str, Any], said: str) -> None:
    model = one_latent(EXACT)
    arguments = {"latents": model.latents(Uniform()), "steps": 2, "noise": NoiseSource(0, range(2)), **more}
    with pytest.raises(InputError, match=said):
        reveal_ancestral(
            process=EXACT, denoiser=model, source=model.source, x=torch.zeros(2, 3, dtype=torch.float64), **arguments
        )

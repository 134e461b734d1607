"""Guidance: affine combinations of predictions, to the bit the plain prediction at scales 0 and 1, and counted."""

from typing import Any

import pytest
import torch
from core.sample_models import MEAN, STD, Counted, every_interpolant, exact_denoiser, one_latent, two_latents
from reed_core.bound.hybrid import mix_logits, mix_predictions
from reed_core.coupling import Independent, Nested
from reed_core.errors import InputError
from reed_core.latent import Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.reveal import Beta, PointMass, Uniform
from reed_core.sample import (
    Autoguidance,
    ClassifierFree,
    Hybrid,
    RepresentationGuidance,
    SelfRevealed,
    WithLatents,
    integrate,
)
from torch import Tensor


def of_condition(x_t: Tensor, t: Tensor, c: float) -> Tensor:
    return torch.sin(x_t) * c + t[:, None]


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.6), (0, 1)])
@pytest.mark.parametrize("scale", [1, 0.0, 1.5, -0.5])
def test_guidance_is_affine_inside_its_interval(scale: float, interval: tuple[float, float]) -> None:
    x, t = torch.randn(5, 2), torch.tensor([0.1, 0.3, 0.45, 0.6, 0.9])
    inner = Counted(of_condition)
    guided = ClassifierFree(inner, null=2.0, scale=scale, interval=interval)(x, t, 3.0)
    conditional, unconditional = of_condition(x, t, 3.0), of_condition(x, t, 2.0)
    inside = torch.tensor([interval[0] == 0, True, True, True, interval[0] == 0])[:, None]
    torch.testing.assert_close(
        guided, torch.where(inside, unconditional + scale * (conditional - unconditional), conditional)
    )
    alone = {1: [3.0], 0.0: [2.0] if interval[0] == 0 else [3.0, 2.0]}
    assert [c for *_, c in inner.seen] == alone.get(scale, [3.0, 2.0])


def test_guidance_outside_its_interval_costs_one_evaluation() -> None:
    process = Interpolant()
    inner = Counted(of_condition)
    guidance = ClassifierFree(inner, null=2.0, scale=2.0, interval=(0.25, 0.5))
    integrate(process, guidance, torch.randn(3, 2), 8, c=3.0, method="euler")
    evaluations = {round(float(t[0]), 3): 0 for _, t, _ in inner.seen}
    for _, t, _ in inner.seen:
        evaluations[round(float(t[0]), 3)] += 1
    assert len(evaluations) == 9
    assert all(count == (2 if 0.25 <= time <= 0.5 else 1) for time, count in evaluations.items())
    assert 2 in evaluations.values()


@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_guided_samples_at_the_ends_are_those_of_one_model(scale: float) -> None:
    x = torch.randn(3, 2)
    inner = Counted(of_condition)
    guided = integrate(Interpolant(), ClassifierFree(inner, 2.0, scale), x, 4, c=3.0)
    alone = integrate(Interpolant(), of_condition, x, 4, c=3.0 if scale else 2.0)
    assert torch.equal(guided, alone)
    assert len(inner.seen) == 9


@every_interpolant
@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_the_guided_score_is_that_of_the_powers_of_the_densities(process: Interpolant, scale: float) -> None:
    """score = (1 - w) score_u + w score_c, by finite differences of log p_u^(1-w) p_c^w at time t."""
    laws = {"u": (MEAN, STD), "c": (MEAN + 1, 0.5 * STD)}

    def denoise(x_t: Tensor, t: Tensor, c: str) -> Tensor:
        return exact_denoiser(process, *laws[c])(x_t, t)

    x, t = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)
    guided = ClassifierFree(denoise, "u", scale)(x, t, "c")
    signal, noise, *_ = process.coefficients(t[:, None])
    score = -process.predict_eps(guided, x, t) / noise

    def log_density(y: Tensor) -> Tensor:
        total = torch.zeros(4, 2, dtype=torch.float64)
        for weight, (mean, std) in [(1 - scale, laws["u"]), (scale, laws["c"])]:
            total -= weight * (y - signal * mean) ** 2 / (2 * (signal**2 * std**2 + noise**2))
        return total

    step = 1e-6
    torch.testing.assert_close(
        score, (log_density(x + step) - log_density(x - step)) / (2 * step), atol=1e-6, rtol=1e-6
    )


def test_a_token_that_both_sides_forbid_stays_forbidden() -> None:
    logits = {"u": torch.tensor([[[0.0, 1.0, -torch.inf]]]), "c": torch.tensor([[[0.5, 0.0, -torch.inf]]])}
    guided = ClassifierFree(lambda x, t, c: logits[c], "u", 3.0)(torch.zeros(1, 1), torch.ones(1), "c")
    torch.testing.assert_close(guided, torch.tensor([[[1.5, -2.0, -torch.inf]]]))


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 4.0])
def test_a_token_that_one_side_forbids_is_forbidden_where_that_side_counts(scale: float) -> None:
    logits = {"u": torch.tensor([[[0.0, 1.0, -torch.inf]]]), "c": torch.tensor([[[0.5, -torch.inf, 2.0]]])}
    guided = ClassifierFree(lambda x, t, c: logits[c], "u", scale)(torch.zeros(1, 1), torch.ones(1), "c")
    assert bool(torch.isneginf(guided[0, 0, 1])) == (scale != 0)
    assert bool(torch.isneginf(guided[0, 0, 2])) == (scale != 1)
    assert not guided.isnan().any()


# Autoguidance


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.3, 0.6)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_autoguidance_moves_away_from_the_bad_model(scale: float, interval: tuple[float, float]) -> None:
    x, t = torch.randn(5, 2), torch.tensor([0.1, 0.3, 0.45, 0.6, 0.9])
    good, bad = Counted(of_condition), Counted(lambda x, t, c: 0.5 * of_condition(x, t, c))
    guided = Autoguidance(good, bad, scale, interval)(x, t, 3.0)
    value = of_condition(x, t, 3.0)
    inside = ((t >= interval[0]) & (t <= interval[1]))[:, None]
    torch.testing.assert_close(guided, torch.where(inside, 0.5 * value + scale * 0.5 * value, value))
    everywhere = interval == (0.0, 1.0)
    assert len(good.seen) == (0 if scale == 0 and everywhere else 1)
    assert len(bad.seen) == (0 if scale == 1 else 1)
    if scale in (0.0, 1.0) and everywhere:
        assert torch.equal(guided, value if scale else 0.5 * value)


# Condition and representation


def of_both(x_t: Tensor, t: Tensor, c: float = 0.0, z: Any = None) -> Tensor:
    shown = 0.0 if z is None else z["z"].z
    return torch.sin(x_t) * (c + 1) + 3 * shown * x_t + c * shown + t[:, None]


Z = {"z": Representation(torch.tensor([[0.3], [-1.0], [0.8]]))}
TOLD = {"z": Revealed(Z["z"].z)}


@pytest.mark.parametrize(
    ("by_c", "by_z", "evaluations"),
    [
        (1.0, 1.0, 1),
        (1.0, 0.0, 1),
        (0.0, 0.0, 1),
        (2.0, 2.0, 2),
        (2.0, 0.0, 2),
        (1.0, 3.0, 2),
        (0.0, 2.0, 3),
        (2.0, 3.0, 3),
    ],
)
def test_representation_guidance_costs_what_its_scales_ask(by_c: float, by_z: float, evaluations: int) -> None:
    x, t, c = torch.randn(3, 2), torch.tensor([0.2, 0.5, 0.9]), 2.0
    inner = Counted(of_both)
    guided = RepresentationGuidance(inner, 0.0, by_c, by_z, Z)(x, t, c)
    none, half, full = of_both(x, t, 0.0), of_both(x, t, c), of_both(x, t, c, TOLD)
    torch.testing.assert_close(guided, none + by_c * (half - none) + by_z * (full - half))
    assert len(inner.seen) == evaluations
    if evaluations == 1:
        assert torch.equal(guided, {0: none, 1: half, 2: full}[int(by_c + by_z)])


def test_each_scale_has_its_interval() -> None:
    x, t, c = torch.randn(4, 1), torch.tensor([0.1, 0.4, 0.6, 0.9]), 2.0
    z = {"z": Representation(torch.randn(4, 1))}
    guidance = RepresentationGuidance(of_both, 0.0, 3.0, 5.0, z, interval_c=(0.0, 0.5), interval_z=(0.3, 0.7))
    none, half, full = of_both(x, t, 0.0), of_both(x, t, c), of_both(x, t, c, {"z": Revealed(z["z"].z)})
    by_c, by_z = torch.tensor([[3.0], [3.0], [1.0], [1.0]]), torch.tensor([[1.0], [5.0], [5.0], [1.0]])
    torch.testing.assert_close(guidance(x, t, c), none + by_c * (half - none) + by_z * (full - half))


def test_without_latents_representation_guidance_is_classifier_free() -> None:
    x, t = torch.randn(3, 2), torch.rand(3)
    inner = Counted(of_both)
    guided = RepresentationGuidance(inner, 0.0, 2.0, 4.0)(x, t, 1.5)
    torch.testing.assert_close(guided, ClassifierFree(of_both, 0.0, 2.0)(x, t, 1.5))
    assert len(inner.seen) == 2


@pytest.mark.parametrize(
    "guidance",
    [
        ClassifierFree(of_both, 0.0, 2.0),
        Autoguidance(of_both, lambda x, t, c, z=None: x, 2.0),
        RepresentationGuidance(of_both, 0.0, 2.0, 3.0),
    ],
    ids=lambda guidance: type(guidance).__name__,
)
def test_what_a_sampler_reveals_reaches_the_network(guidance: Any) -> None:
    x, t = torch.randn(3, 2), torch.rand(3)
    assert not torch.allclose(guidance(x, t, 1.0, z=TOLD), guidance(x, t, 1.0))


def test_fields_are_guided_one_by_one() -> None:
    x, t = {"a": torch.randn(3, 2), "b": torch.randn(3, 4, 5)}, torch.rand(3)

    def denoise(x: Any, t: Tensor, c: float = 0.0, z: Any = None) -> Any:
        return {name: value * (c + 1) + (0.0 if z is None else 1.0) for name, value in x.items()}

    guided = RepresentationGuidance(denoise, 0.0, 2.0, 3.0, Z)(x, t, 1.0)
    for name, value in x.items():
        torch.testing.assert_close(guided[name], value + 2 * value + 3)
    assert torch.equal(ClassifierFree(denoise, 0.0, 1.0)(x, t, 1.0)["b"], 2 * x["b"])


# Given latents


def test_a_denoiser_with_latents_shows_them_at_every_step() -> None:
    x = torch.randn(3, 2)
    inner = Counted(of_both)
    integrate(Interpolant(), WithLatents(inner, Z), x, 3, c=1.0)
    assert len(inner.told) == 7
    assert all(told is not None and torch.equal(told["z"].z, Z["z"].z) for told in inner.told)


@pytest.mark.parametrize(("A", "told"), [(0.0, None), (1.0, TOLD)])
def test_the_hybrid_at_its_ends_is_the_plain_prediction_to_the_bit(A: float, told: Any) -> None:
    x, t = torch.randn(3, 2), torch.rand(3)
    inner = Counted(of_both)
    mixed = Hybrid(inner, Z, {"z": lambda t: torch.full_like(t, A)})(x, t, 2.0)
    assert torch.equal(mixed, of_both(x, t, 2.0, told))
    assert len(inner.seen) == 1


def test_the_hybrid_mixes_by_survival_each_sample_by_its_own() -> None:
    x, t = torch.randn(3, 2), torch.tensor([0.0, 0.3, 1.0])
    mixed = Hybrid(of_both, Z, {"z": Beta(2.0, 1.0).survival})(x, t, 2.0)
    expected = mix_predictions(of_both(x, t, 2.0), of_both(x, t, 2.0, TOLD), 1 - t**2)
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(mixed[0], of_both(x, t, 2.0, TOLD)[0])
    assert torch.equal(mixed[2], of_both(x, t, 2.0)[2])


def test_the_hybrid_of_tokens_is_that_of_their_logits() -> None:
    t = torch.tensor([0.0, 0.3, 1.0])
    plain, given = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    plain[:, 0, 1], given[:, :, 2] = -torch.inf, -torch.inf
    mixed = Hybrid(lambda x, t, c, z=None: plain if z is None else given, Z, {"z": Uniform().survival})
    torch.testing.assert_close(mixed(torch.zeros(3, 4), t).log_softmax(-1), mix_logits(plain, given, 1 - t))


@pytest.mark.parametrize(("coupling", "evaluations"), [(Independent(), 4), (Nested(), 3)])
def test_the_hybrid_of_several_latents_weighs_every_revealed_set(coupling: Any, evaluations: int) -> None:
    model = two_latents(Interpolant())
    x, t = torch.randn(3, 4, dtype=torch.float64), torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    z = {name: Representation(torch.randn(3, 4, 1, dtype=torch.float64)) for name in model.names}
    survival = {"coarse": Beta(2.0, 1.0).survival, "fine": Uniform().survival}
    inner = Counted(model)
    mixed = Hybrid(inner, z, survival, coupling)(x, t)
    first, second = 1 - t**2, 1 - t
    weights = {
        Independent(): {(): t**2 * t, ("coarse",): first * t, ("fine",): t**2 * second, model.names: first * second},
        Nested(): {(): 1 - first, ("coarse",): first - second, model.names: second},
    }[coupling]
    expected = sum(
        weight[:, None] * model(x, t, z={name: Revealed(z[name].z) for name in names})
        for names, weight in weights.items()
    )
    torch.testing.assert_close(mixed, expected)
    assert len(inner.seen) == evaluations


def test_a_hybrid_refuses_scales_and_strangers() -> None:
    with pytest.raises(InputError, match=r"lies in \[0, 1\]"):
        Hybrid(of_both, Z, {"z": lambda t: t + 1})(torch.randn(3, 2), torch.rand(3))
    with pytest.raises(InputError, match="survivals of w"):
        Hybrid(of_both, Z, {"w": PointMass(1.0).survival})
    with pytest.raises(InputError, match="exchange"):
        ClassifierFree(of_both, 0.0, 2.0, (0.7, 0.3))


# The model's own latents


def test_a_model_told_the_latent_it_predicts_itself_is_asked_anew_at_every_step() -> None:
    model = one_latent(Interpolant())
    noise = NoiseSource(0, range(3))
    asked = Counted(lambda x_t, t, c: model.posterior(x_t, t, None)[0][..., 1:])
    inner = Counted(model)

    def source(name: str, x_t: Tensor, t: Tensor, c: Any, *rest: Any) -> Representation:
        return Representation(asked(x_t, t, c))

    denoiser = SelfRevealed(inner, source, ("z",), noise, interval=(0.2, 0.7))
    x = noise.normal((4,)).double()
    integrate(Interpolant(), denoiser, x, 10, method="euler")
    assert len(inner.seen) == 11
    shown = [float(t[0]) for (_, t, _), told in zip(inner.seen, inner.told, strict=True) if told is not None]
    assert shown == [float(t[0]) for _, t, _ in asked.seen]
    assert len(shown) == 6
    assert all(0.2 <= time <= 0.7 for time in shown)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    only = Revealed(asked.denoiser(x, t, None), None, torch.tensor([False, True, False]))
    torch.testing.assert_close(denoiser(x, t), model(x, t, z={"z": only}))

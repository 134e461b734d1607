"""The examples run, and what they say of themselves is so; the code of the page on one's own domain runs too."""

import importlib.util
import math
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
MIXTURE = ROOT / "examples" / "mixture_2d.py"
PAGE = ROOT / "docs" / "bring-your-own-domain.md"


@pytest.fixture(scope="module")
def mixture() -> ModuleType:
    """The example, as a module."""
    spec = importlib.util.spec_from_file_location("mixture_2d", MIXTURE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mixture_2d"] = module
    spec.loader.exec_module(module)
    return module


def test_the_exact_velocity_is_the_mean_of_many_draws(mixture: Any) -> None:
    plane, points = mixture.Mixture(), torch.tensor([[0.9, 0.3], [0.1, -0.5], [1.2, 1.1]])
    t, x_0 = torch.tensor([0.2, 0.7, 0.4]), plane.sample(400_000, 0).double()
    for point, time, velocity in zip(points.double(), t.double(), plane.velocity(points, t), strict=True):
        eps = (point - (1 - time) * x_0) / time  # the noise that leads from each x_0 to this x_t
        weight = torch.softmax(-0.5 * eps.square().sum(-1), 0)
        expected = (weight[:, None] * (eps - x_0)).sum(0)
        torch.testing.assert_close(velocity.double(), expected, rtol=0.02, atol=0.02)


def test_measures_know_the_data_from_noise(mixture: Any) -> None:
    plane = mixture.Mixture()
    data, again, noise = plane.sample(2000, 0), plane.sample(2000, 1), torch.randn(2000, 2)
    assert plane.strays(data) == pytest.approx(math.exp(-4.5), abs=0.008)
    assert plane.strays(noise) > 0.5
    assert abs(mixture.energy_distance(data, again)) < 0.005 < mixture.energy_distance(data, noise)


def test_arms_differ_in_the_latent_alone(mixture: Any) -> None:
    plain, shuffled, guided = (mixture.set_up(arm, seed=3) for arm in mixture.ARMS)
    for other in (shuffled, guided):
        assert torch.equal(plain.x, other.x)
        first, second = plain.denoiser.state_dict(), other.denoiser.state_dict()
        assert all(torch.equal(first[name], second[name]) for name in first)
    both = (shuffled.objective.state_dict(), guided.objective.state_dict())
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[0])
    assert not torch.equal(plain.x, mixture.set_up("guided", seed=4).x)


def test_a_shuffled_latent_says_nothing_of_x(mixture: Any) -> None:
    shuffled, guided = (mixture.set_up(arm, seed=3) for arm in ("shuffled", "guided"))
    same = (shuffled.z[:, None, :] == shuffled.z[None, :1]).all(-1).sum()
    assert same == 1  # no two z are alike, so the same values in another order are a permutation
    assert torch.equal(shuffled.z.sum(-1).sort().values, guided.z.sum(-1).sort().values)
    train, test = slice(0, 12000), slice(12000, None)
    for run, least, most in ((shuffled, -0.05, 0.05), (guided, 0.5, 1.0)):
        design = torch.cat([run.z, torch.ones(len(run.z), 1)], 1)
        fit = torch.linalg.lstsq(design[train], run.x[train]).solution
        explained = 1 - (run.x[test] - design[test] @ fit).var() / run.x[test].var()
        assert least < explained <= most


def test_steps_to_a_level_lie_on_the_curve(mixture: Any) -> None:
    assert mixture.steps_to([4.0, 2.0, 1.0], [10, 20, 30], 3.0) == 15
    assert mixture.steps_to([4.0, 2.0, 1.0], [10, 20, 30], 1.0) == 30
    assert mixture.steps_to([4.0, 2.0, 1.0], [10, 20, 30], 5.0) == 10
    assert math.isinf(mixture.steps_to([4.0, 2.0], [10, 20], 1.0))


def test_the_mixture_example_prints_its_table_and_draws_its_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "mixture.png"
    command = [sys.executable, str(MIXTURE), "--quick", "--workers", "1", "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert out.read_bytes().startswith(b"\x89PNG")
    rows = [line for line in ran.stdout.splitlines() if "+-" in line and not line.startswith("mean")]
    assert len(rows) == 9
    numbers = [float(number) for row in rows for number in re.findall(r"-?\w*\.\w+", row)]
    assert len(numbers) == 9 * 5 * 2
    assert all(math.isfinite(number) for number in numbers)


def test_the_page_on_ones_own_domain_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    assert len([line for line in blocks[1].splitlines() if line]) <= 15
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in blocks[:3]:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["samples"].shape == (16, 8)
    assert names["samples"].isfinite().all()
    loss = names["loss"]
    assert set(loss.alignment) == {"shape"}
    assert loss.alignment["shape"].mean() < -0.8  # -1 is perfect: the latent has been learned
    assert loss.denoising.mean().isfinite()
    for block in blocks[3:]:
        exec(compile(block, str(PAGE), "exec"), names)
    assert (names["drawn"].x.shape, names["drawn"].z["shape"].z.shape) == ((16, 8), (16, 3))
    assert names["drawn"].x.isfinite().all()
    assert bool((names["ceiling"].upper <= 1.0).all())
    assert names["advice"].caveats

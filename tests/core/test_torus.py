"""The torus of `examples/` runs from a wheel of reed-core alone, and is what it says: the example is a third party's.

The wheel is installed into a new environment beside links to reed-core's declared dependencies; the examples are copied
out of the repository. Nothing else is visible there (as in `tests/workspace/test_wheels.py`).
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CORE = ROOT / "packages" / "reed-core"

Run = Callable[..., str]

CHECKS = """
import importlib.util, math, sys
import torch
import reed_core
from reed_core.noise import NoiseSource
from reed_core.process import BoundedProcess
from reed_core.sample import ancestral
from reed_core.testing import check_process, check_sampler
from torus import Torus, sigma, wrap

assert sys.argv[1] not in reed_core.__file__, reed_core.__file__
assert not [name for name in ("pytest", "hypothesis", "beartype") if importlib.util.find_spec(name)]
generator = torch.Generator().manual_seed(0)
process = Torus()
assert isinstance(process, BoundedProcess)
mask = torch.arange(5)[None] < torch.tensor([5, 1, 3, 4])[:, None]
angles = wrap(9 * torch.randn(4, 5, 2, generator=generator))
for seed in (0, 1):
    check_process(process, angles, mask, seed=seed)
check_process(process, angles[..., 0], mask)
check_process(process, angles[:, :2, 0])

# The target is sigma times the slope of the log-density, by differences, at every width.
x_0, t = angles[:, :, 0].double(), torch.tensor([0.05, 0.3, 0.6, 1.0], dtype=torch.float64)
noisy = process.corrupt(x_0, t, NoiseSource(0, range(4)))
def log_q(x):
    copies = x_0[..., None] + 2 * math.pi * torch.arange(-9, 10)
    return torch.logsumexp(-((x[..., None] - copies) / sigma(t, x)[..., None]).square() / 2, -1)
slope = (log_q(noisy.x_t + 1e-6) - log_q(noisy.x_t - 1e-6)) / 2e-6
torch.testing.assert_close(noisy.target, sigma(t, x_0) * slope, atol=1e-5, rtol=1e-5)

# The exact denoiser of a single point brings all samples there.
def denoise(x, t, c=None):
    away = (wrap(1.0 - x)[..., None] + 2 * math.pi * torch.arange(-6, 7)) / sigma(t, x)[..., None]
    return (torch.softmax(-away.square() / 2, -1) * away).sum(-1)
def sampler(denoiser, x, noise, mask):
    return ancestral(process, denoiser, x, 50, noise, mask=mask)
found = sampler(denoise, process.prior(angles[:, :, 0], NoiseSource(3, range(4))), NoiseSource(4, range(4)), None)
assert float((found - 1).abs().max()) < 0.01, found

# Uniform angles have no score.
even = math.pi * (2 * torch.rand(4000, 5, generator=generator) - 1)
nothing = lambda x, t, c=None: torch.zeros_like(x)
check_sampler(sampler, process, angles[..., 0], mask, denoiser=nothing, data=even)
print("all checks pass")
"""


def requirements(lines: list[str]) -> set[str]:
    """The installed distributions that some requirements ask for, directly or not; extras are left out."""
    todo, names = [Requirement(line) for line in lines], set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in names or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        names.add(name)
        todo += [Requirement(line) for line in importlib.metadata.requires(name) or ()]
    return names


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a Python program beside copies of the examples, with reed-core's wheel and what it declares."""
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "the workspace is built with uv: pip install uv"
    folder, work = tmp_path_factory.mktemp("environment"), tmp_path_factory.mktemp("third_party")
    build = [uv, "build", "--package", "reed-core", "--wheel", "--quiet", "--out-dir", str(folder / "wheels")]
    for mode in (["--offline"], []):
        built = subprocess.run([*build, *mode], cwd=ROOT, capture_output=True, text=True, timeout=600)
        if built.returncode == 0:
            break
    assert built.returncode == 0, built.stderr
    home = folder / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True, timeout=600)
    (wheel,) = (folder / "wheels").glob("*.whl")
    install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(home), str(wheel)]
    subprocess.run(install, check=True, timeout=600)
    places = {name: str(home) for name in ("base", "platbase", "installed_base", "installed_platbase")}
    libraries = Path(sysconfig.get_path("purelib", "venv", places))
    declared = tomllib.loads((CORE / "pyproject.toml").read_text())["project"]["dependencies"]
    for name in requirements(declared):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not top.endswith(".pth") and not (libraries / top).exists():
                (libraries / top).symlink_to(Path(str(distribution.locate_file(top))))
    for example in ("torus.py", "torus_train.py"):
        shutil.copy(ROOT / "examples" / example, work)
    python = Path(sysconfig.get_path("scripts", "venv", places)) / "python"

    def run(*arguments: str) -> str:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        ran = subprocess.run(
            [str(python), *arguments], cwd=work, env=clean, capture_output=True, text=True, timeout=600
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    (work / "checks.py").write_text(CHECKS, encoding="utf-8")
    return run


def test_the_process_passes_every_check_from_the_wheel_alone(outside: Run) -> None:
    assert outside("checks.py", str(ROOT)) == "all checks pass\n"


def test_it_learns_and_samples_from_the_wheel_alone(outside: Run) -> None:
    """Fewer steps than the default: the bound is above the entropy, and far below what noise would give."""
    said = outside("torus_train.py", "--steps", "250")
    found = re.search(r"samples +([\d.]+)\n.*other data +([\d.]+)\nbound +([\d.]+) nats, entropy ([\d.]+)\n", said)
    assert found, said
    samples, data, bound, entropy = map(float, found.groups())
    assert data < 0.06
    assert samples < 0.45  # uniform angles: 0.77
    assert entropy - 0.1 < bound < 3.675  # twice log 2 pi: a model that knows nothing


def test_it_is_short_and_public() -> None:
    text = (ROOT / "examples" / "torus.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    assert not re.search(r"import _|\._[a-z]", text)

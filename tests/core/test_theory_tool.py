import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import reed_core.bound.terms
import torch
from reed_core.errors import InputError
from torch import Tensor
from typer.testing import CliRunner

TOOL = Path(__file__).parents[2] / "tools" / "theory.py"
LABELS = {"D1", "D2", "D3", "D4", "D5", "D6", "D7", "D8", "D10", "D13", "D14", "D16"}


@pytest.fixture(scope="module")
def theory() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("theory_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["theory_tool"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["theory_tool"]


@pytest.mark.parametrize(("seed", "dim", "steps"), [(0, 3, 5), (1, 1, 2)])
def test_theory_holds(theory: ModuleType, seed: int, dim: int, steps: int) -> None:
    ended = CliRunner().invoke(theory.app, ["--seed", str(seed), "--dim", str(dim), "--steps", str(steps)])
    assert ended.exit_code == 0, ended.output
    rows = ended.output.splitlines()[1:-1]
    assert {row.split()[0] for row in rows} == LABELS
    assert all(row.endswith("pass") for row in rows)


def test_a_wrong_survival_function_is_detected(theory: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(alpha: Tensor) -> Tensor:
        """A_{t+1} where A_t belongs."""
        tail = alpha.flip(0).cumsum(0).flip(0)
        return torch.cat([tail[1:], tail.new_zeros(1)])

    monkeypatch.setattr(reed_core.bound.terms, "survival_on_grid", late)
    ended = CliRunner().invoke(theory.app, ["--dim", "2", "--steps", "3"])
    assert ended.exit_code == 1
    assert {row.split()[0] for row in ended.output.splitlines() if row.endswith("FAIL")} >= {"D4", "D14"}


def test_the_sign_of_log_z_is_detected(theory: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        reed_core.bound.terms.BoundTerms,
        "total",
        property(
            lambda self: (
                self.prior + self.reconstruction + (self.denoising + self.alignment + self.log_normaliser).sum(-1)
            )
        ),
    )
    checks = theory.measure(seed=0, dim=2, steps=3)
    assert {"D4", "D14"} <= {check.label for check in checks if not check.passed}


def test_same_seed_same_figures(theory: ModuleType) -> None:
    first, second = (theory.measure(seed=5, dim=2, steps=2) for _ in range(2))
    assert first == second
    assert first != theory.measure(seed=6, dim=2, steps=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2e-9, -float("inf")])
def test_what_is_not_finite_or_too_large_fails(theory: ModuleType, value: float) -> None:
    assert not theory.Check("D0", "", value).passed
    assert theory.Check("D0", "", 1e-12).passed
    assert not theory.Check("D0", "", 1e-12, 1e-10, at_least=True).passed


@pytest.mark.parametrize("options", [["--dim", "0"], ["--steps", "1"]])
def test_impossible_sizes_are_refused(theory: ModuleType, options: list[str]) -> None:
    ended = CliRunner().invoke(theory.app, options)
    assert isinstance(ended.exception, InputError)


def test_help_imports_no_torch() -> None:
    script = f"""
import runpy, sys
sys.argv = ["theory", "--help"]
try:
    runpy.run_path({str(TOOL)!r}, run_name="__main__")
except SystemExit as end:
    sys.exit(end.code or "torch" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "--steps" in ended.stdout

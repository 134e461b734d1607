import importlib
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reed_core.bound.many
import reed_core.bound.terms
import reed_core.bound.tuples
import torch
from reed_core.errors import InputError
from reed_core.head import VonMisesFisher
from reed_core.reveal import Cosine
from torch import Tensor
from typer.testing import CliRunner

TOOL = Path(__file__).parents[2] / "tools" / "theory.py"
LABELS = {f"D{number}" for number in range(1, 17)}


@pytest.fixture(scope="module", autouse=True)
def path() -> Iterator[None]:
    """The folder of the tool, where its checks lie beside it, as when it is run."""
    sys.path.insert(0, str(TOOL.parent))
    yield
    sys.path.remove(str(TOOL.parent))
    for name in [name for name in sys.modules if name.split(".")[0] == "theory_checks"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def checking(path: None) -> ModuleType:
    return importlib.import_module("theory_checks.check")


def invoke(*options: str) -> Any:
    return CliRunner().invoke(runpy.run_path(str(TOOL))["app"], list(options))


def test_theory_holds() -> None:
    ended = invoke("--seed", "3", "--dim", "2", "--steps", "3")
    assert ended.exit_code == 0, ended.output
    rows = ended.output.splitlines()[1:-1]
    assert {row.split()[0] for row in rows} == LABELS
    assert all(row.endswith("pass") for row in rows)


def test_a_wrong_survival_function_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(alpha: Tensor) -> Tensor:
        """A_{t+1} where A_t belongs."""
        tail = alpha.flip(0).cumsum(0).flip(0)
        return torch.cat([tail[1:], tail.new_zeros(1)])

    monkeypatch.setattr(reed_core.bound.terms, "survival_on_grid", late)
    monkeypatch.setattr(importlib.import_module("theory_checks.measure"), "MANY", ())
    ended = invoke("--dim", "1", "--steps", "2")
    assert ended.exit_code == 1
    assert {row.split()[0] for row in ended.output.splitlines() if row.endswith("FAIL")} >= {"D4", "D14"}


def test_a_label_without_a_check_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("GAUSSIAN", "MANY"):
        monkeypatch.setattr(importlib.import_module("theory_checks.measure"), kind, ())
    ended = invoke("--dim", "1", "--steps", "2")
    assert ended.exit_code == 1
    assert [row.split()[0] for row in ended.output.splitlines() if row.endswith("FAIL")] == ["D9", "D16"]


def wrong_sign(self: Any) -> Tensor:
    return self.prior + self.reconstruction + (self.denoising + self.alignment + self.log_normaliser).sum(-1)


def ties_reversed(tuples: Tensor) -> Tensor:
    """Of two revealed at once the last listed first."""
    order = torch.arange(tuples.shape[1])
    here, other = tuples[:, :, None], tuples[:, None, :]
    before = (other > here) | ((other == here) & (order[None, :] > order[:, None]))
    return (before.long() << order).sum(-1)


def one_step_late(tuples: Tensor, steps: int) -> Tensor:
    """tau_l > t where tau_l >= t belongs."""
    shown = tuples[:, None, :] > torch.arange(1, steps + 1)[:, None]
    return (shown.long() << torch.arange(tuples.shape[1])).sum(-1)


@pytest.mark.parametrize(
    ("owner", "name", "value", "checks", "labels"),
    [
        (reed_core.bound.terms.BoundTerms, "total", property(wrong_sign), "bound.check_bound", {"D4"}),
        (reed_core.bound.terms.BoundTerms, "total", property(wrong_sign), "bound.check_estimator", {"D14"}),
        (reed_core.bound.tuples, "earlier_sets", ties_reversed, "many.check_bound", {"D14"}),
        (reed_core.bound.tuples, "earlier_sets", ties_reversed, "many.check_tuples", {"D9"}),
        (reed_core.bound.tuples, "revealed_sets", one_step_late, "many.check_weights", {"D9"}),
        (reed_core.bound.tuples, "revealed_sets", one_step_late, "many.check_bound", {"D4", "D14"}),
        (reed_core.bound.many, "power", lambda p, weight: p * weight**2, "many.check_geometric_mean", {"D5", "D14"}),
        (VonMisesFisher, "log_normaliser", lambda self, dim: 0.0, "heads.check_sphere", {"D11"}),
        (Cosine, "survival", lambda self, t: 1 - t, "presets.check_weights", {"D15"}),
    ],
)
def test_a_wrong_formula_is_detected(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, value: Any, checks: str, labels: set[str]
) -> None:
    module, function = checks.split(".")
    check = getattr(importlib.import_module(f"theory_checks.{module}"), function)
    place, make = ("setting_many", "settings_many") if module == "many" else ("setting", "settings")
    setting = next(getattr(importlib.import_module(f"theory_checks.{place}"), make)(0, 2, 3))
    assert all(row.passed for row in check(setting))
    monkeypatch.setattr(owner, name, value)
    assert labels <= {row.label for row in check(setting) if not row.passed}


@pytest.mark.parametrize(("place", "make"), [("setting", "settings"), ("setting_many", "settings_many")])
def test_same_seed_same_models(place: str, make: str) -> None:
    draw = getattr(importlib.import_module(f"theory_checks.{place}"), make)
    module = "samplers" if place == "setting" else "many"
    check = importlib.import_module(f"theory_checks.{module}").check_samplers
    first, second, other = (list(check(next(draw(seed, 1, 2)))) for seed in (5, 5, 6))
    assert first == second
    assert first != other


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2e-9, -float("inf")])
def test_what_is_not_finite_or_too_large_fails(checking: ModuleType, value: float) -> None:
    assert not checking.Check("D0", "", value).passed
    assert checking.Check("D0", "", 1e-12).passed
    assert not checking.Check("D0", "", 1e-12, 1e-10, at_least=True).passed


@pytest.mark.parametrize("options", [["--dim", "0"], ["--steps", "1"]])
def test_impossible_sizes_are_refused(options: list[str]) -> None:
    assert isinstance(invoke(*options).exception, InputError)


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


def test_runs_as_a_program() -> None:
    ended = subprocess.run(
        [sys.executable, str(TOOL), "--dim", "1", "--steps", "2"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "checks passed" in ended.stdout

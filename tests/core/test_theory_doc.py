"""What docs/theory.md says is so: names, labels, figures, checks, code and the output printed beside it."""

import contextlib
import importlib
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from reed_core.bound.divergence import reveal_saving
from reed_core.bound.solvable.categorical import CategoricalModel
from reed_core.reveal import Beta, PointMass, Uniform
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
PAGE, TOOL = ROOT / "docs" / "theory.md", ROOT / "tools" / "theory_figures.py"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
NAMES = sorted(set(re.findall(r"\breed_core(?:\.\w+)+", TEXT)))


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    """The tool that draws the figures, as a module."""
    spec = importlib.util.spec_from_file_location("theory_figures", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def resolve(name: str) -> Any:
    """The module or attribute of a dotted name."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise AssertionError(f"{name} is no module")


def test_every_name_exists() -> None:
    assert len(NAMES) > 30
    missing = []
    for name in NAMES:
        try:
            resolve(name)
        except (AttributeError, AssertionError):
            missing.append(name)
    assert not missing


@pytest.mark.parametrize("name", ["reed_core.nothing", "reed_core.bound.terms.nothing", "reed_core.head.Gaussian.no"])
def test_a_name_that_does_not_exist_is_seen(name: str) -> None:
    with pytest.raises((AttributeError, AssertionError)):
        resolve(name)


def test_every_label_is_stated_and_listed() -> None:
    body, _, index = TEXT.partition("## Where each label is")
    labels = {f"D{number}" for number in range(1, 17)}
    assert set(re.findall(r"\bD\d+\b", index)) == labels
    bold = " ".join(re.findall(r"\*\*((?:Prop|D\d)[^*]*)\*\*", body))
    assert set(re.findall(r"\bD\d+\b", bold)) == labels


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(#([^)]*)\)", TEXT)
    assert targets
    assert set(targets) <= anchors


def test_every_check_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", TEXT))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / "tests" / "core" / name).is_file()]
    checked = set(re.findall(r"D\d+", " ".join(re.findall(r"`theory\.py`, (D\d+(?:(?:, | and )D\d+)*)", TEXT))))
    source = (ROOT / "tools" / "theory.py").read_text(encoding="utf-8")
    assert checked
    assert not [label for label in checked if f'"{label}"' not in source]


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
def test_code_prints_what_stands_beside_it(block: str) -> None:
    expected = re.findall(r"^# > (.*)$", block, re.MULTILINE)
    assert expected
    torch.manual_seed(0)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block, str(PAGE), "exec"), {})
    assert printed.getvalue().splitlines() == expected


def test_figures_exist_and_are_those_of_the_tool(figures: Any) -> None:
    shown = re.findall(r"!\[[^]]+\]\(figures/(\w+\.png)\)", TEXT)
    assert sorted(shown) == sorted(figures.FIGURES)
    assert "uv run tools/theory_figures.py --out docs/figures" in TEXT
    for name in shown:
        content = (ROOT / "docs" / "figures" / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) < 150_000


def test_the_tool_writes_its_pictures(figures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    quick = {name: figures.FIGURES[name] for name in ("theory_reveal.png", "theory_hybrid.png")}
    monkeypatch.setattr(figures, "FIGURES", quick)
    ended = CliRunner().invoke(figures.app, ["--out", str(tmp_path / "new")])
    assert ended.exit_code == 0, ended.output
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(quick)


def test_bars_have_one_height_and_the_untold_one_lacks_what_would_be_saved(figures: Any) -> None:
    model = CategoricalModel.random(torch.Generator().manual_seed(3), steps=4, states=3, latents=2)
    entropy, known = -(model.data * model.data.log()).sum(), model.information()
    for reveal in (PointMass(0.0), Uniform(), Beta(3.0, 1.0), PointMass(1.0)):
        alpha = reveal.on_grid(4)
        told, untold = (figures.mean_terms(model, heads, alpha) for heads in (model.exact, figures.untold(model.exact)))
        torch.testing.assert_close(told.sum(), entropy)
        torch.testing.assert_close(untold.sum(), entropy + reveal_saving(known.gain, alpha))
        torch.testing.assert_close(untold[3], torch.zeros_like(untold[3]))


def test_the_bias_of_the_naive_chain_grows_to_a_limit_and_the_exact_sampler_has_none(figures: Any) -> None:
    few, some, many = (figures.divergence(steps, Uniform(), naive=True) for steps in (4, 16, 64))
    assert 0.01 < few < some < many < 2 * some
    assert abs(figures.divergence(16, Uniform(), naive=False)) < 1e-12
    assert abs(figures.divergence(16, PointMass(1.0), naive=True)) < 1e-12


def test_help_imports_neither_torch_nor_matplotlib() -> None:
    script = f"""
import runpy, sys
sys.argv = ["theory_figures", "--help"]
try:
    runpy.run_path({str(TOOL)!r}, run_name="__main__")
except SystemExit as end:
    sys.exit(end.code or "torch" in sys.modules or "matplotlib" in sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "--seed" in ended.stdout

"""Pictures are written whole, as PNG files, and say so when they cannot be."""

import sys
from pathlib import Path

import pytest
import torch
from reed_core.diagnose import (
    AttainableCosine,
    CosineByTime,
    DepthEvidence,
    DepthTable,
    GradientStatistics,
    GradientTable,
    Recommendation,
)
from reed_core.diagnose.plot import plot_cosine, plot_depth, plot_gradients, plot_recommendation
from reed_core.diagnose.recommend import Look
from reed_core.errors import InputError

TIMES = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
CURVE = CosineByTime(TIMES, 0.8 - TIMES / 2, 0.01 + 0 * TIMES)
BOUNDS = AttainableCosine(TIMES, 1 - TIMES / 2, 0.9 - TIMES / 2, 0 * TIMES, 0 * TIMES)


def is_picture(path: Path) -> bool:
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_every_picture_is_drawn(tmp_path: Path) -> None:
    plot_cosine(tmp_path / "cosine.png", {"a": CURVE, "b": CURVE}, BOUNDS)
    plot_cosine(tmp_path / "bare.png", {"a": CURVE})
    square = torch.rand(14, 5, dtype=torch.float64)
    paths = tuple(f"net.blocks.{i}" for i in range(14))
    plot_depth(tmp_path / "depth.png", DepthTable(paths, TIMES, square, square, square, square / 9, TIMES, 100))
    figures = [torch.rand(2, 3) for _ in range(9)]
    figures[2][0, 1:] = torch.nan
    table = GradientTable(
        ("a", "b"), paths[:3], GradientStatistics(*figures), GradientStatistics(*(f[:, 0] for f in figures)), 4
    )
    plot_gradients(tmp_path / "gradients.png", table)
    looks = tuple(Look(100 * i, 0.3 - 0.1 * i, 0.02, 0.5 * i) for i in range(1, 5))
    evidence = tuple(DepthEvidence(path, 8, 0.1, 0.01, 0.02, 0.01, looks, "candidate") for path in paths[:2])
    plot_recommendation(tmp_path / "found.png", Recommendation(paths[0], 0.5, 300.0, evidence, 1.0, ()))
    assert all(is_picture(path) for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 5


def test_without_matplotlib_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"reed-core\[plot\]"):
        plot_cosine(tmp_path / "cosine.png", {"a": CURVE})
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write"):
        plot_cosine(tmp_path, {"a": CURVE})

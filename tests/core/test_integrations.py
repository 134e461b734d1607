"""The objective inside other people's code: diffusers' networks, accelerate's and Lightning's loops, torch.compile."""

import importlib.util
import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from reed_core.denoiser import Tap

EXAMPLES = Path(__file__).parents[2] / "examples"
STEPS = 6


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An example as a module; those that it imports are found beside it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module: ModuleType = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


# Networks


def test_a_transformer_of_diffusers_learns_two_latents(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    losses = example("diffusers_transformer", monkeypatch).train(50)
    first, last = losses[0], losses[-1]
    assert set(last.alignment) == {"patch", "way"}
    assert last.denoising.mean().item() < 0.8 * first.denoising.mean().item()
    for name in ("patch", "way"):
        assert last.alignment[name].mean().item() < first.alignment[name].mean().item() - 0.3


def test_both_depths_of_the_transformer_are_read_and_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    toy = example("diffusers_transformer", monkeypatch)
    torch.manual_seed(0)
    net = toy.Denoiser()
    names, keys = [name for name, _ in net.named_modules()], list(net.state_dict())
    x_0, _, kind = toy.blobs(3, 0)
    paths = [f"dit.transformer_blocks.{block}" for block in (0, 2)]
    with Tap(net, paths) as tap:
        net(x_0, torch.full((3,), 0.5), kind)
    assert [tap[path].shape for path in paths] == [(3, 16, 32)] * 2
    assert not torch.equal(*(tap[path] for path in paths))
    slopes = torch.autograd.grad(tap[paths[1]].square().sum(), net.parameters(), allow_unused=True)
    touched = {name for (name, _), slope in zip(net.named_parameters(), slopes, strict=True) if slope is not None}
    assert any("transformer_blocks.2" in name for name in touched)
    assert not any("transformer_blocks.3" in name for name in touched)
    assert ([name for name, _ in net.named_modules()], list(net.state_dict())) == (names, keys)


# Loops


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The losses of the plain loop."""
    losses = list(example("plain_loop", monkeypatch).run(STEPS))
    assert len(losses) == STEPS
    assert len(set(losses)) == STEPS
    return losses


def test_accelerate_has_the_losses_of_the_plain_loop(plain: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("accelerate")
    losses = list(example("accelerate_loop", monkeypatch).run(STEPS, cpu=True))
    assert losses == pytest.approx(plain, rel=1e-6)


def test_lightning_has_the_losses_of_the_plain_loop(plain: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        losses = example("lightning_loop", monkeypatch).run(STEPS, accelerator="cpu")
    assert losses == pytest.approx(plain, rel=1e-6)


def test_two_halves_of_a_batch_have_its_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """What data parallelism does: positions, not batches, carry the randomness."""
    toy = example("plain_loop", monkeypatch)
    step = toy.Step()
    ((positions, x_0),) = toy.batches(1)
    whole = step(positions, x_0)
    halves = [step(positions[half::2], x_0[half::2]) for half in (0, 1)]
    torch.testing.assert_close(sum(halves) / 2, whole)


# torch.compile


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "kinds"),
    [("aot_eager", ["on", "off by curriculum", "told", "told, null pass"]), ("inductor", ["told"])],
)
def test_the_loss_is_one_graph_that_equals_the_eager_loss(backend: str, kinds: list[str]) -> None:
    """In a program of its own, as run-time type checks cannot be compiled; two batches share one graph."""
    command = [sys.executable, str(Path(__file__).with_name("compiled_loss.py")), backend, *kinds]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["kind"] for one in found] == kinds
    for one in found:
        assert one["graphs"] == 1, one
        assert one["values"] < 1e-5, one
        assert one["slopes"] < 1e-5, one
        assert one["alignment"] == ([] if one["kind"] == "off by curriculum" else ["kind", "patch"])
        assert (one["shown"] > 0) == one["kind"].startswith("told")

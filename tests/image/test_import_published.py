"""Published checkpoints: the same function of x and t, in our convention; files with wrappers, settings and dirt."""

import argparse
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import image.published_sit as published
import pytest
import reed_image
import torch
from reed_core.errors import InputError
from reed_core.hub import save_pretrained
from reed_core.sample import ClassifierFree, integrate
from reed_image.convert import convert
from reed_image.imports import import_checkpoint
from reed_image.model import ImageModel
from reed_image.network import Condition, SiT, preset
from safetensors.torch import save_file

LABELS = torch.tensor([0, 4, -1])


@pytest.fixture(autouse=True)
def _wide() -> Iterator[None]:
    """Everything in float64, so that a difference is one of formulas."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (3, published.CHANNELS, published.SIZE, published.SIZE)
    return torch.randn(shape, generator=generator), torch.tensor([0.0, 0.37, 1.0])


def read(path: Path, state: Any, **options: Any) -> Any:
    torch.save(state, path)
    return import_checkpoint(path, heads=published.HEADS, **options)


# Equivalence


@torch.no_grad()
@pytest.mark.parametrize("qk_norm", [False, True])
def test_repa_weights_say_the_same(tmp_path: Path, qk_norm: bool) -> None:
    """REPA and REED: t = 0 is data, v = noise - data, as here."""
    state = published.weights(doubled=False, qk_norm=qk_norm)
    x, t = inputs()
    expected = published.run(state, x, t, LABELS)
    for source in ("repa", "reed"):
        found = read(tmp_path / "last.pt", {"ema": state}, source=source)
        torch.testing.assert_close(found.model(x, t, Condition(LABELS)), expected, rtol=1e-9, atol=1e-9)
    assert found.direction == "repa"
    assert expected.std() > 0.1


@torch.no_grad()
def test_sit_weights_say_the_opposite_of_time_and_sign(tmp_path: Path) -> None:
    """SiT: t' = 1 is data, v' = data - noise, and half of the outputs are dropped."""
    state = published.weights(doubled=True)
    found = read(tmp_path / "sit.pt", state)
    x, t = inputs()
    expected = -published.run(state, x, 1 - t, LABELS)
    torch.testing.assert_close(found.model(x, t, Condition(LABELS)), expected, rtol=1e-9, atol=1e-9)
    assert found.direction == "sit"
    assert found.model.config.network.learn_sigma
    assert (found.model(x, 1 - t, Condition(LABELS)) - expected).abs().max() > 0.01  # time was not ignored


@torch.no_grad()
def test_a_sample_of_sit_is_the_same_sample(tmp_path: Path) -> None:
    """Euler's steps with the original network, from noise at t' = 0 to data at t' = 1, guided by 1.5, and ours."""
    state, steps, scale = published.weights(doubled=True), 10, 1.5
    x, _ = inputs()
    model = read(tmp_path / "sit.pt", state).model
    theirs, null = x.clone(), torch.full((3,), published.CLASSES)
    for step in range(steps):
        t = torch.full((3,), step / steps)
        guided, free = (published.run(state, theirs, t, label) for label in (LABELS, null))
        theirs = theirs + (free + scale * (guided - free)) / steps
    process = model.process.__class__(t_min=1 / steps, t_max=1.0)
    guidance = ClassifierFree(model, None, scale)
    ours = integrate(process, guidance, x, steps - 1, Condition(LABELS), method="euler")
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_network_of_noise_keeps_its_sign(tmp_path: Path) -> None:
    state = published.weights(doubled=True)
    settings = argparse.Namespace(prediction="noise", path_type="GVP", train_eps=None)
    found = read(tmp_path / "noise.pt", {"ema": state, "args": settings})
    x, t = inputs()
    said = found.model(x, t, Condition(LABELS))
    torch.testing.assert_close(said, published.run(state, x, 1 - t, LABELS), rtol=1e-9, atol=1e-9)
    assert (found.model.process.prediction, found.model.process.path) == ("eps", "trig")


def test_the_published_shapes_fill_the_whole_network() -> None:
    """Keys and shapes of SiT-XL/2's file on the meta device: nothing is missing, nothing left over, heads known."""
    config = preset("XL", 2, learn_sigma=True)
    with torch.device("meta"):
        net = SiT(config)
    D, C = config.width, config.channels
    state = {name: torch.empty(shape) for name, shape in {"x_embedder.proj.bias": (D,)}.items()}
    shapes = {"x_embedder.proj.weight": (D, C, 2, 2), "y_embedder.embedding_table.weight": (1001, D)}
    linears = {"t_embedder.mlp.0": (D, 256), "t_embedder.mlp.2": (D, D), "final_layer.linear": (8 * C, D)}
    linears["final_layer.adaLN_modulation.1"] = (2 * D, D)
    for k in range(28):
        linears |= {f"blocks.{k}.attn.qkv": (3 * D, D), f"blocks.{k}.attn.proj": (D, D)}
        linears |= {f"blocks.{k}.mlp.fc1": (4 * D, D), f"blocks.{k}.mlp.fc2": (D, 4 * D)}
        linears[f"blocks.{k}.adaLN_modulation.1"] = (6 * D, D)
    shapes |= {f"{name}.weight": shape for name, shape in linears.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in linears.items()}
    state |= {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    state["pos_embed"] = published.positions(D, config.grid)
    found = convert(state, "repa")
    assert found.config == config
    assert sum(value.numel() for value in state.values()) == 675_129_632
    ours = {name: value.shape for name, value in net.state_dict().items()}
    assert {name: value.shape for name, value in found.state.items()} == ours


# Files


@torch.no_grad()
@pytest.mark.parametrize("kind", ["flat", "wrapped", "compiled", "safetensors", "before zip", "half"])
def test_all_kinds_of_files_give_the_same_model(tmp_path: Path, kind: str) -> None:
    state = published.weights(doubled=True)
    x, t = inputs()
    expected, path, most = -published.run(state, x, 1 - t, LABELS), tmp_path / "model.pt", 1e-9
    if kind == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(state, path)
    elif kind == "wrapped":
        torch.save({"ema": {f"module.{key}": value for key, value in state.items()}}, path)
    elif kind == "compiled":
        torch.save({"model": {f"module._orig_mod.{key}": value for key, value in state.items()}}, path)
    elif kind == "half":
        torch.save({key: value.bfloat16() for key, value in state.items()}, path)
        most = 0.1
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind != "before zip")
    found = import_checkpoint(path, heads=published.HEADS)
    torch.testing.assert_close(found.model(x, t, Condition(LABELS)), expected, rtol=0, atol=most)
    assert found.weights == {"wrapped": "ema", "compiled": "model"}.get(kind, "all")


def test_averaged_weights_are_preferred_and_projectors_named(tmp_path: Path) -> None:
    state = published.weights(doubled=False, projectors=True)
    other = {key: value if key == "pos_embed" else value + 1 for key, value in state.items()}
    settings = argparse.Namespace(prediction="v", path_type="linear", proj_coeff=0.5, enc_type="dinov2-vit-b")
    content = {"model": other, "ema": state, "opt": {"state": {}}, "args": settings, "steps": 400_000}
    found = read(tmp_path / "0400000.pt", content)
    assert found.weights == "ema"
    assert found.direction == "repa"
    assert found.dropped == tuple(f"projectors.0.{k}.{part}" for k in (0, 2, 4) for part in ("bias", "weight"))
    table = found.model.network.label.table.weight
    torch.testing.assert_close(table.detach(), state["y_embedder.embedding_table.weight"])
    assert found.model.config.network.classes == published.CLASSES
    assert found.model.config.autoencoder is not None
    assert found.model.config.autoencoder.scale == (0.18215,) * 4
    other = import_checkpoint(tmp_path / "0400000.pt", heads=published.HEADS, autoencoder=None)
    assert other.model.config.autoencoder is None


@torch.no_grad()
def test_early_repa_weights_count_their_blocks_in_two_lists(tmp_path: Path) -> None:
    whole = published.weights(doubled=False)
    old = published.weights(doubled=False, legacy=True)
    assert any(key.startswith("decoder_blocks.0") for key in old)
    x, t = inputs()
    said = [read(tmp_path / "last.pt", state, source="repa").model(x, t, Condition(LABELS)) for state in (whole, old)]
    torch.testing.assert_close(said[0], said[1])


def test_an_imported_model_is_kept_as_any_other(tmp_path: Path) -> None:
    model = read(tmp_path / "sit.pt", published.weights(doubled=True)).model.float()
    save_pretrained(model, tmp_path / "model")
    again = reed_image.load(tmp_path / "model").float()
    assert isinstance(again, ImageModel)
    assert again.config == model.config
    x, t = (value.float() for value in inputs())
    with torch.no_grad():
        assert torch.equal(again(x, t, Condition(LABELS)), model(x, t, Condition(LABELS)))


# What is refused


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("code in a checkpoint was run",))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"ema": published.weights(doubled=True), "args": Bomb()}, path)
    with pytest.raises(InputError, match="more than tensors"):
        import_checkpoint(path, heads=2)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match="more than tensors"):
        import_checkpoint(path, heads=2)


def test_what_cannot_be_told_is_asked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which end of time"):
        read(tmp_path / "model.pt", published.weights(doubled=False))
    torch.save(published.weights(doubled=True), tmp_path / "model.pt")
    with pytest.raises(InputError, match="how many heads"):
        import_checkpoint(tmp_path / "model.pt")
    with pytest.raises(InputError, match="must divide width"):
        import_checkpoint(tmp_path / "model.pt", heads=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("blocks.1.mlp.fc2.bias"), "Missing key.*blocks.1.mlp.outer.bias"),
        (lambda state: state.pop("pos_embed"), "no weight 'pos_embed'"),
        (lambda state: state.update({"blocks.0.gate": torch.ones(1)}), "unknown weight 'blocks.0.gate'"),
        (lambda state: state.update({"pos_embed": state["pos_embed"].flip(1)}), "fixed sines and cosines"),
        (lambda state: state.update({"pos_embed": state["pos_embed"][:, :15]}), "square"),
        (lambda state: state.update({"final_layer.linear.weight": torch.ones(3, 32)}), "size mismatch"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    state = published.weights(doubled=True)
    change(state)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "model.pt", state, source="sit")


def test_other_trainings_are_refused(tmp_path: Path) -> None:
    state = published.weights(doubled=True)
    for settings, message in (({"prediction": "score"}, "prediction 'score'"), ({"path_type": "VP"}, "path 'VP'")):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "model.pt", {"ema": state, "args": argparse.Namespace(**settings)}, source="sit")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        import_checkpoint(tmp_path / "none.pt")
    for name in ("junk.pt", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"junk")
        with pytest.raises(InputError, match="is not a"):
            import_checkpoint(tmp_path / name)
    for content, message in (([1], "holds a list"), ({"epoch": 3}, "no tensors")):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "model.pt", content)

"""Latents that a model is told, and a latent that diffuses beside the picture: training, weights and sampling."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_folder
from pydantic import ValidationError
from reed_core.errors import InputError
from reed_core.latent import Representation, Revealed
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant, Product
from reed_core.process.clock import Window
from reed_core.sample import integrate
from reed_image.autoencoder import load_autoencoder
from reed_image.beside import beside_pictures, open_caches, plans_of
from reed_image.data import open_prepared, open_source, prepare
from reed_image.latents import featurize
from reed_image.latents.field import Projection
from reed_image.model import ImageModel, ModelConfig, load
from reed_image.network import Condition, SiT, SiTConfig
from reed_image.recipe import Recipe
from reed_image.sample import Request, draw
from reed_image.solve import integrate_fields
from reed_image.training import build_objective, open_data, run_recipe, start, training_estimate
from torch import Tensor

TINY = {"patch": 8, "width": 32, "depth": 2, "heads": 2}
LAYOUT = {"kind": "layout", "tap": "blocks.0", "hidden": 16, "layers": 2}
TOKENS = {"kind": "timm", "model": "test_vit", "weights": "random", "name": "tokens", "tap": "blocks.1", "hidden": 16}
KINDS: dict[str, list[dict[str, Any]]] = {
    "explicit": [{**LAYOUT, "injection": "explicit"}, TOKENS],
    "two explicit": [
        {**LAYOUT, "injection": "explicit"},
        {**TOKENS, "injection": "explicit", "level": "global", "into": "blocks.0"},
    ],
    "joint": [{**TOKENS, "injection": "joint", "components": 4, "tap": ""}, LAYOUT],
    "joint, pooled, first": [{**LAYOUT, "injection": "joint", "components": 2, "window": [0.4, 1.0]}],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    for name, each in (("data", 4), ("valid", 2)):
        source = open_source(write_folder(folder / f"{name}-files", each=each))
        prepare(source, folder / name, load_autoencoder("pixels"), size=16, flips=name == "data", progress=False)
    return folder


def recipe(place: Path, latents: list[dict[str, Any]], **settings: Any) -> Recipe:
    values = {
        "data": str(place / "data"),
        "valid": str(place / "valid"),
        "batch_size": 4,
        "network": TINY,
        "latents": latents,
        "cache": str(place / "cache"),
        "sampling": {"num": 2, "steps": 1, "cfg": 2.0},
        "train": {"samples": 8, "log_every": 1, "decay": 0.0, "learning_rate": 1e-2, "checkpoint_every": 4},
        **settings,
    }
    return Recipe.model_validate(values)


def written(settings: Recipe) -> Recipe:
    for plan, prepared in plans_of(settings):
        assert featurize(plan, prepared) is not None
    return settings


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_its_weights_and_its_pictures(place: Path, tmp_path: Path, kind: str) -> None:
    settings = written(recipe(place, KINDS[kind]))
    model = run_recipe(settings, tmp_path / "whole", progress=False)
    short = recipe(place, KINDS[kind], train={**settings.train.model_dump(), "samples": 4})
    run_recipe(short, tmp_path / "parts", progress=False)
    again = run_recipe(settings, tmp_path / "parts", progress=False)
    kept = load(tmp_path / "whole" / "weights")
    for (name, one), other, third in zip(
        model.state_dict().items(), again.state_dict().values(), kept.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
        assert torch.equal(one, third), name
    assert kept.config == model.config
    for sampler in ("euler", "heun", "sde"):
        request = Request(3, steps=2, sampler=sampler, scale=2.0)
        whole = torch.cat([part.x for part in draw(kept, request)])
        parts = torch.cat([part.x for part in draw(kept, request, batch=2)])
        assert whole.shape == (3, 3, 16, 16)
        torch.testing.assert_close(whole, parts, rtol=1e-3, atol=1e-3)
    rows = torch.cat([part.x for part in draw(kept, Request(1, steps=1, between=3))])
    assert rows.shape == (3, 3, 16, 16)
    log = (tmp_path / "whole" / "log.jsonl").read_text()
    assert '"valid_loss"' in log
    names = [spec.name for spec in settings.scored]
    assert all(f'"{name}"' in log for name in names)
    assert not any(name.startswith("network.") and ".projection" in name for name in kept.state_dict())


def test_configurations_without_any_of_it_are_still_read() -> None:
    sizes = {"size": 8, "channels": 3, "patch": 4, "width": 16, "depth": 2, "heads": 2, "classes": 3, "text_dim": 0}
    rest = {"mlp_ratio": 4.0, "qk_norm": False, "rope": False, "learn_sigma": False}
    held = {"kind": "image", "network": {**sizes, **rest}, "path": "linear", "prediction": "v", "autoencoder": None}
    config = ModelConfig.model_validate({**held, "class_names": []})
    model = ImageModel(config)
    assert all(name.startswith("network.") for name in model.state_dict())
    assert model.process == Interpolant()


def told_model(**settings: Any) -> ImageModel:
    told = {"name": "a", "dim": 5, "into": "time", "tap": "blocks.0", "hidden": 8, "layers": 1}
    network = SiTConfig(size=8, channels=3, patch=4, width=16, depth=2, heads=2, classes=3)
    torch.manual_seed(0)
    model = ImageModel(ModelConfig.model_validate({"network": network.model_dump(), "told": [told], **settings}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.2 * torch.randn(value.shape, generator=generator))
    return model.eval()


def test_the_network_is_led_by_z_and_not_changed_by_its_absence() -> None:
    torch.manual_seed(0)
    network = SiTConfig(size=8, channels=3, patch=4, width=16, depth=2, heads=2, classes=3)
    told = {"name": "a", "dim": 5, "into": "time", "tap": "blocks.0", "hidden": 8, "layers": 1}
    new = ImageModel(ModelConfig.model_validate({"network": network.model_dump(), "told": [told]}))
    plain = ImageModel(ModelConfig(network=network))
    assert set(plain.state_dict()) < set(new.state_dict())
    with torch.no_grad():
        for value in new.network.parameters():
            value.normal_(std=0.2)
    plain.load_state_dict({name: new.state_dict()[name] for name in plain.state_dict()})
    x, t, c = torch.randn(2, 3, 8, 8), torch.tensor([0.3, 0.8]), Condition(torch.tensor([0, 2]))
    z = {"a": Revealed(torch.randn(2, 5))}
    torch.testing.assert_close(new(x, t, c, z), plain(x, t, c))  # adapters start at nothing
    with pytest.raises(InputError, match="told no latents"):
        plain(x, t, c, z)
    model = told_model()
    assert float((model(x, t, c, z) - model(x, t, c)).detach().abs().max()) > 1e-4
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.network.patch.weight.zero_()
    assert not torch.equal(twin(x, t, c, z), model(x, t, c, z))  # a copy is led through its own network


def test_z_is_drawn_for_the_class_or_given() -> None:
    model = told_model()

    def drawn(**settings: Any) -> Tensor:
        return torch.cat([part.x for part in draw(model, Request(2, steps=2, **settings))])

    zeros, ones = torch.zeros(1, 5), torch.ones(1, 5)
    own = drawn(labels=(0,))
    assert float((drawn(labels=(0,), given={"a": zeros}) - own).abs().max()) > 1e-4
    both = drawn(labels=(0,), given={"a": torch.cat([zeros, ones])})
    torch.testing.assert_close(both[:1], drawn(labels=(0,), given={"a": zeros})[:1])
    torch.testing.assert_close(both[1:], drawn(labels=(0,), given={"a": ones})[1:])
    with pytest.raises(InputError, match="told no latent 'b'"):
        drawn(given={"b": zeros})
    with pytest.raises(InputError, match="width 4"):
        drawn(given={"a": torch.zeros(1, 4)})


def test_a_row_goes_from_one_class_to_another() -> None:
    model = told_model()
    z = {"a": torch.zeros(1, 5)}
    rows = Request(1, steps=2, between=3, blend=True, labels=(0, 2), given=z)
    row = torch.cat([part.x for part in draw(model, rows, batch=2)])
    for place, label in ((0, 0), (2, 2)):
        alone = next(draw(model, Request(1, steps=2, labels=(label,), given=z))).x
        torch.testing.assert_close(row[place : place + 1], alone, rtol=1e-4, atol=1e-5)
    assert float((row[1] - row[0]).abs().max()) > 1e-4 < float((row[1] - row[2]).abs().max())
    with pytest.raises(InputError, match="blending needs"):
        Request(1, blend=True)


def test_the_generator_that_is_trained_is_that_of_the_model(place: Path) -> None:
    settings = written(recipe(place, KINDS["explicit"]))
    prepared = open_prepared(settings.data)
    caches = open_caches(settings, prepared)
    model = start(settings, prepared, caches).model
    objective = build_objective(settings, model, caches.latents)
    assert objective.readout("layout").flow is model.generators["layout"]
    z = caches.latents.values["layout"].gather(range(len(prepared))).z.float()
    torch.testing.assert_close(model.generators["layout"].mean, z.mean(0), rtol=1e-3, atol=1e-4)
    beside = beside_pictures(settings, caches.latents.values, caches.text, model)
    data = open_data(settings, prepared, caches.latents, model.config.network.classes, beside)
    noise = NoiseSource(0, range(4))
    batch = data.batch([0, 1, 2, 3], noise)
    loss = objective(model, batch.x_0, noise, z=batch.z, c=batch.c)
    loss.total.backward()
    for module in (model.generators["layout"].leave, model.network.final.linear):
        assert module.weight.grad is not None  # type: ignore[union-attr]
        assert float(module.weight.grad.abs().max()) > 0  # type: ignore[union-attr, operator]


def test_the_field_is_the_leading_components_of_z() -> None:
    torch.manual_seed(0)
    base = torch.linalg.qr(torch.randn(6, 6))[0]
    z = torch.randn(500, 6) * torch.tensor([5.0, 3.0, 0.1, 0.1, 0.1, 0.1]) @ base.T + 2.0

    class Held:
        def gather(self, items: Any) -> Representation:
            return Representation(z[list(items)])

    projection = Projection(6, 2)
    projection.fit(Held(), 500)
    found = projection(z)
    torch.testing.assert_close(found.mean(0), torch.zeros(2), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.T @ found / 500, torch.eye(2), rtol=1e-3, atol=1e-3)
    again = found * projection.scale @ projection.components + projection.mean
    assert float((again - z).square().mean() / z.var()) < 0.01


def test_two_fields_of_one_network() -> None:
    torch.manual_seed(0)
    config = SiTConfig(size=8, channels=3, patch=4, width=16, depth=1, heads=2, classes=0, joint=5)
    network = SiT(config)
    x, z, t = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 5), torch.tensor([0.2, 0.7])
    said = network({"x": x, "z": z}, t)
    assert {name: tuple(part.shape) for name, part in said.items()} == {"x": (2, 3, 8, 8), "z": (2, 4, 5)}
    assert not any(bool(part.any()) for part in said.values())  # zero at the start
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(std=0.3)
    first, other = network({"x": x, "z": z}, t), network({"x": x, "z": z + 1}, t)
    assert all(float((first[name] - other[name]).detach().abs().max()) > 1e-3 for name in first)
    for wrong in (x, {"x": x}, {"x": x, "z": z[:, :1]}):
        with pytest.raises(InputError, match="two fields"):
            network(wrong, t)
    with pytest.raises(InputError, match="network of one"):
        SiT(config.model_copy(update={"joint": 0}))({"x": x, "z": z}, t)


Denoiser = Callable[..., Any]


def gaussian(x: Tensor, t: Tensor) -> Tensor:
    """The exact velocity for N(0, 4) on the linear path."""
    t = t.reshape(-1, *[1] * (x.ndim - 1))
    return (t - 4 * (1 - t)) / (4 * (1 - t) ** 2 + t**2) * x


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_fields_on_one_clock_are_one_vector(method: Any) -> None:
    x, z = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)

    def whole(v: Tensor, t: Tensor, c: Any = None) -> Tensor:
        return gaussian(v, t) + 0.1 * v.sum(1, keepdim=True)

    def fields(state: Any, t: Tensor, c: Any = None) -> dict[str, Tensor]:
        said = whole(torch.cat([state["x"], state["z"]], 1), t)
        return {"x": said[:, :3], "z": said[:, 3:]}

    expected = integrate(Interpolant(), whole, torch.cat([x, z], 1), 5, method=method)
    product = Product({"x": Interpolant(), "z": Interpolant()})
    found = integrate_fields(product, fields, {"x": x, "z": z}, 5, method=method)
    torch.testing.assert_close(torch.cat([found["x"], found["z"]], 1), expected)


def test_a_field_that_is_done_early_stands_still() -> None:
    product = Product({"x": Interpolant(), "z": Interpolant()}, {"z": Window(0.5, 1.0)})
    seen: list[tuple[float, Tensor]] = []

    def exact(state: Any, t: Tensor, c: Any = None) -> dict[str, Tensor]:
        seen.append((float(t[0]), state["z"]))
        own = product.field_time("z", t).time
        return {"x": gaussian(state["x"], t), "z": gaussian(state["z"], own)}

    state = {name: torch.randn(2, 3, dtype=torch.float64) for name in ("x", "z")}
    found = integrate_fields(product, exact, state, 200)
    late = [z for time, z in seen if time < 0.499]
    assert len(late) > 50
    assert all(torch.equal(z, found["z"]) for z in late)
    for name in ("x", "z"):
        torch.testing.assert_close(found[name], 2 * state[name], rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    ("latents", "said"),
    [
        ([{**LAYOUT, "tap": ""}], "tap is missing"),
        ([{**LAYOUT, "injection": "explicit", "reveal": [0.0, 0.5]}], "belongs to implicit"),
        ([{**LAYOUT, "injection": "joint", "window": [0.5, 0.5]}], "low < high"),
        ([{**LAYOUT, "injection": "joint"}, {**TOKENS, "injection": "joint"}], "two latents are joint"),
        ([{**LAYOUT, "injection": "joint"}, {**TOKENS, "injection": "explicit"}], "neither explicit"),
    ],
)
def test_what_does_not_fit_together_is_refused(place: Path, latents: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe(place, latents)


def test_what_does_not_fit_the_caches_is_refused(place: Path, tmp_path: Path) -> None:
    token = written(recipe(place, [{**TOKENS, "injection": "explicit"}]))
    with pytest.raises(InputError, match="draws one vector"):
        run_recipe(token, tmp_path / "a", progress=False)
    wide = written(recipe(place, [{**TOKENS, "injection": "joint", "components": 65}]))
    with pytest.raises(InputError, match="has the width 64"):
        run_recipe(wide, tmp_path / "b", progress=False)
    fresh = recipe(place, KINDS["joint"], cache=str(tmp_path / "none"))
    assert training_estimate(fresh, tmp_path / "c").steps == 2  # what is not there is stood in for

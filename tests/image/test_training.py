"""Training from a recipe: guided from caches, resumed to the last bit; what is withheld hangs on the sample."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_files import write_folder
from PIL import Image
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_image.autoencoder import load_autoencoder
from reed_image.data import Prepared, open_source, prepare
from reed_image.latents import featurize, open_latents, plan_of, store
from reed_image.model import ImageModel, load
from reed_image.recipe import Recipe
from reed_image.training import (
    Told,
    build_objective,
    config_of,
    held_out_loss,
    open_data,
    run_recipe,
    start,
    training_estimate,
)

TINY = {"patch": 4, "width": 32, "depth": 2, "heads": 2}
TOKENS = {"kind": "timm", "model": "test_vit", "weights": "random", "tap": "blocks.0", "name": "tokens", "hidden": 16}
LAYOUT = {"kind": "layout", "tap": "blocks.1", "weight": 0.25, "hidden": 16, "layers": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared pictures (mirrored too), held-out ones, and the caches of two latents."""
    folder = tmp_path_factory.mktemp("place")
    for name, each in (("data", 6), ("valid", 2)):
        source = open_source(write_folder(folder / f"{name}-files", each=each))
        prepare(source, folder / name, load_autoencoder("pixels"), size=16, flips=name == "data", progress=False)
    settings = recipe(folder)
    for spec in settings.active:
        assert featurize(plan_of(spec, opened(settings), folder / "cache", 4), opened(settings)) is not None
    return folder


def recipe(place: Path, samples: int = 24, **settings: Any) -> Recipe:
    train = {"samples": samples, "decay": 0.0, "checkpoint_every": 12, "log_every": 1, **settings.pop("train", {})}
    values = {
        "data": str(place / "data"),
        "batch_size": 6,
        "drop": 0.3,
        "network": TINY,
        "latents": [TOKENS, LAYOUT],
        "cache": str(place / "cache"),
        "sampling": {"num": 4, "steps": 1, "cfg": 2.0},
        **settings,
    }
    return Recipe.model_validate({**values, "train": train})


def opened(settings: Recipe) -> Prepared:
    from reed_image.data import open_prepared

    return open_prepared(settings.data)


def test_a_guided_run_and_its_resumption(place: Path, tmp_path: Path) -> None:
    settings = {"valid": str(place / "valid"), "train": {"sample_every": 12}}
    whole = run_recipe(recipe(place, **settings), tmp_path / "whole", progress=False)
    run_recipe(recipe(place, samples=12, **settings), tmp_path / "parts", progress=False)
    again = run_recipe(recipe(place, **settings), tmp_path / "parts", progress=False)
    for (name, one), other in zip(whole.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    kept = load(tmp_path / "whole" / "weights").state_dict()
    assert all(torch.equal(kept[name], value) for name, value in whole.state_dict().items())
    for seen in (12, 24):
        sheet = Image.open(tmp_path / "whole" / "samples" / f"{seen:012d}" / "grid.png")
        assert sheet.size == (2 * 18 + 2, 2 * 18 + 2)
    log = (tmp_path / "whole" / "log.jsonl").read_text()
    assert all(f'"{name}"' in log for name in ("tokens", "layout", "denoising", "valid_loss"))
    with pytest.raises(InputError, match="another recipe"):
        run_recipe(recipe(place, batch_size=4, **settings), tmp_path / "whole", progress=False)


def test_guidance_reaches_the_network_and_shuffling_changes_it(place: Path) -> None:
    def gradient(**settings: Any) -> torch.Tensor:
        made = recipe(place, **settings)
        prepared, model = opened(made), start(made, opened(made)).model
        shuffle = 0 if made.shuffle else None
        values = open_latents(made.active, prepared, place / "cache", 4, shuffle)
        torch.manual_seed(1)
        objective = build_objective(made, model, values)
        noise = NoiseSource(0, range(6))
        batch = open_data(made, prepared, values, 2).batch(range(6), noise)
        loss = objective(model, batch.x_0, noise, z=batch.z, c=batch.c)
        assert set(loss.alignment) == {spec.name for spec in made.active}
        model.zero_grad()
        loss.total.backward()
        found = dict(model.named_parameters())["network.blocks.0.modulation.linear.weight"].grad
        assert found is not None
        return found.clone()

    own, shuffled, alone = gradient(), gradient(shuffle=True), gradient(without=["tokens"])
    assert float(own.abs().max()) > 0
    assert not torch.equal(own, shuffled)
    assert not torch.equal(own, alone)


def test_z_belongs_to_the_picture_and_to_its_mirrored_copy(place: Path) -> None:
    settings = recipe(place)
    prepared = opened(settings)
    values = open_latents(settings.active, prepared, place / "cache", 4)
    assert values.forms == {"tokens": ("token", 64), "layout": ("global", 192)}
    batch = open_data(settings, prepared, values, 2).batch([3, 0, 7], NoiseSource(5, range(3)))
    x_0 = batch.x_0
    assert isinstance(x_0, torch.Tensor)
    z = batch.z() if callable(batch.z) else batch.z
    assert z is not None
    items = [
        next(item for item in (2 * one, 2 * one + 1) if torch.equal(prepared.latents([item])[0], x_0[place]))
        for place, one in enumerate([3, 0, 7])
    ]
    for spec in settings.active:
        encoder = spec.encoder(4)
        expected = encoder(prepared.pictures(items)).z.half()
        assert torch.allclose(z[spec.name].z, expected, atol=2e-3)


def test_what_is_withheld_depends_on_the_sample_alone(place: Path) -> None:
    settings = recipe(place, latents=[])
    prepared = opened(settings)
    data = open_data(settings, prepared, open_latents((), prepared, place, 4), 2)
    items = [index % 12 for index in range(400)]
    whole = data.batch(items, NoiseSource(1, range(400))).c.label
    parts = [
        data.batch(items[start : start + 100], NoiseSource(1, range(start, start + 100))).c.label
        for start in range(0, 400, 100)
    ]
    assert torch.equal(whole, torch.cat(parts))
    own = prepared.labels_of([2 * item for item in items])
    assert torch.equal(whole[whole >= 0], own[whole >= 0])
    assert 0.2 < float((whole < 0).float().mean()) < 0.4
    assert replace(data, drop=0.0).batch(items, NoiseSource(1, range(400))).c.label.min() == 0
    assert Told(data.data, 0).batch(items[:2], NoiseSource(1, range(2))).c is None


def test_the_model_is_what_the_data_are(place: Path) -> None:
    config = config_of(recipe(place), opened(recipe(place)))
    assert (config.network.classes, config.class_names, config.autoencoder) == (2, ("ant", "bee"), None)
    assert (config.network.size, config.network.channels) == (16, 3)


def test_weights_to_start_from(place: Path, tmp_path: Path) -> None:
    settings = recipe(place, samples=6, latents=[], sampling={"num": 0})
    model = run_recipe(settings, tmp_path, progress=False)
    assert not (tmp_path / "samples").exists()
    deeper = recipe(place, network={**TINY, "depth": 3}, init=str(tmp_path / "weights"))
    begun = start(deeper, opened(deeper))
    assert torch.equal(begun.model.network.patch.weight, model.network.patch.weight)
    assert all(name.startswith("network.blocks.2.") for name in begun.initial.random)
    assert any("depth" in line for line in begun.differ)
    with pytest.raises(InputError, match="predicts v"):
        start(recipe(place, init=str(tmp_path / "weights"), prediction="x0"), opened(deeper))


def test_an_estimate_writes_nothing(place: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    settings = recipe(place, cache=str(tmp_path / "none"))
    table = training_estimate(settings, tmp_path / "run").table()
    assert "24 pictures in 4 steps" in table
    assert "to be written first" in table
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_missing_is_said_before_the_run_begins(place: Path, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"cache": str(tmp_path)}, "no cache of latent 'tokens'"),
        ({"latents": [{**LAYOUT, "tap": "blocks.9"}]}, "no submodule 'blocks.9'"),
        ({"batch_size": 13}, "set batch_size to 12"),
        ({"data": str(tmp_path / "none")}, "no prepared pictures"),
        ({"network": {**TINY, "heads": 5}}, "heads 5"),
        ({"network": {**TINY, "patch": 2}}, "no cache of latent 'tokens'"),
    ]
    for settings, said in cases:
        with pytest.raises(InputError, match=said):
            run_recipe(recipe(place, **settings), tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
    other = open_source(write_folder(tmp_path / "files", classes=("ant", "cow"), each=2))
    prepare(other, tmp_path / "other", load_autoencoder("pixels"), size=16, progress=False)
    with pytest.raises(InputError, match="differ in"):
        run_recipe(recipe(place, valid=str(tmp_path / "other")), tmp_path / "run", progress=False)


def test_caches_are_written_in_shares(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_ITEMS", 5)
    settings = recipe(place)
    prepared, spec = opened(settings), settings.active[1]
    plan = plan_of(spec, prepared, tmp_path, 4)
    assert featurize(plan, prepared, part=(0, 2)) is None
    with pytest.raises(InputError, match="no cache of latent 'layout'"):
        open_latents([spec], prepared, tmp_path, 4)
    cache = featurize(plan, prepared, part=(1, 2))
    assert cache is not None
    assert len(cache.manifest.shards) == 5
    whole = open_latents([spec], prepared, place / "cache", 4).values["layout"].gather(range(24))
    assert torch.equal(cache.gather(range(24)).z, whole.z)
    shutil.rmtree(plan.folder)


def test_the_held_out_loss_asks_the_same_whatever_the_batch(place: Path) -> None:
    settings = recipe(place)
    valid = opened(settings.model_copy(update={"data": str(place / "valid")}))
    torch.manual_seed(0)
    model = ImageModel(config_of(settings, opened(settings))).eval()
    torch.nn.init.normal_(model.network.final.linear.weight)
    one, four = (held_out_loss(model, valid, batch, 3) for batch in (1, 4))
    assert one == pytest.approx(four, rel=1e-4)
    assert held_out_loss(model, valid, 4, 4) != four

"""Recipes: those of the package are sound, and what does not fit together is refused where it is read."""

from pathlib import Path
from typing import Any

import pytest
from picture_files import write_folder
from pydantic import ValidationError
from reed_core.errors import InputError
from reed_core.head import Gaussian, VonMisesFisher
from reed_core.reveal import Cutoff, Uniform
from reed_core.train.config import read_config
from reed_image.autoencoder import load_autoencoder
from reed_image.data import Prepared, open_source, prepare
from reed_image.latents import build_latents, plan_of
from reed_image.network import SIZES, SiTConfig
from reed_image.recipe import RECIPES, Recipe, recipe_path

LAYOUT = {"kind": "layout", "tap": "blocks.0"}


def recipe(**settings: Any) -> Recipe:
    return Recipe.model_validate({"data": "here", "train": {"samples": 8}, **settings})


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("pictures")
    source = open_source(write_folder(folder / "files", each=3))
    return prepare(source, folder / "out", load_autoencoder("pixels"), size=16, progress=False)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_package(path: Path) -> None:
    found = read_config(Recipe, recipe_path(path.stem))
    assert found == Recipe.model_validate_json(found.model_dump_json())
    depth = found.network.depth or SIZES[found.network.preset].depth
    for spec in found.scored:
        assert 0 <= int(spec.tap.removeprefix("blocks.")) < depth
    head = path.read_text().partition("\ndata =")[0]
    assert all(f"#   {word}:" in head for word in ("data", "command", "hardware"))


def test_the_paper_recipe_is_the_papers() -> None:
    found = read_config(Recipe, recipe_path("sit-xl-reed"))
    asked = {spec.name: (spec.tap, spec.weight) for spec in found.active}
    assert asked == {"dinov2": ("blocks.7", 0.5), "vlm": ("blocks.15", 0.25)}  # after blocks 8 and 16, counted from 1
    curriculum = found.curriculum.curriculum()
    assert [curriculum.b(256 * steps) for steps in (0, 25_000, 50_000, 900_000)] == [0.0, 0.5, 1.0, 1.0]
    assert curriculum.a(0) == curriculum.a(found.train.samples) == 1.0


def test_sizes_come_from_preset_data_and_recipe(prepared: Prepared) -> None:
    network = recipe(network={"preset": "B", "patch": 4, "depth": 3, "rope": True}).network.of(prepared)
    assert network == SiTConfig(size=16, channels=3, patch=4, width=768, depth=3, heads=12, classes=2, rope=True)
    assert recipe(network={"classes": False}).network.of(prepared).classes == 0
    with pytest.raises(InputError, match="patch 3 must divide size 16"):
        recipe(network={"patch": 3}).network.of(prepared)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"latents": [LAYOUT, LAYOUT]}, "different names"),
        ({"latents": [LAYOUT], "without": ["other"]}, "no latent other"),
        ({"shuffle": True}, "there is none"),
        ({"latents": [LAYOUT], "without": ["layout"], "shuffle": True}, "there is none"),
        ({"latents": [{**LAYOUT, "reveal": [0.7, 0.2]}]}, "low < high"),
        ({"latents": [{**LAYOUT, "format": "int4"}]}, "format"),
        ({"latents": [{**LAYOUT, "model": "resnet18"}]}, "model"),
        ({"curriculum": {"alignment": "cosine"}}, "needs it"),
        ({"curriculum": {"alignment_end": 5}}, "belongs to"),
        ({"network": {"size": "XL"}}, "size"),
        ({"drop": 1.0}, "drop"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        recipe(**settings)


def test_latents_are_as_the_recipe_says() -> None:
    tables = [
        {**LAYOUT, "reveal": [0.0, 0.6], "head": "gaussian", "sigma": 2.0, "weight": 0.1},
        {"kind": "timm", "model": "m", "tap": "blocks.1", "hidden": 7},
    ]
    specs = recipe(latents=tables).active
    forms: Any = {"layout": ("global", 192), "timm": ("token", 5)}
    first, second = build_latents(specs, forms, SiTConfig(width=32, heads=2))
    assert (first.level, first.dim, first.tap_dim, first.weight) == ("global", 192, 32, 0.1)
    assert (first.reveal, first.head, first.hidden) == (Cutoff(0.0, 0.6), Gaussian(2.0), 32)
    assert (second.reveal, second.head, second.hidden) == (Uniform(), VonMisesFisher(1.0), 7)


def test_a_caches_folder_follows_what_its_values_depend_on(prepared: Prepared, tmp_path: Path) -> None:
    table = {"kind": "timm", "model": "m", "tap": "blocks.1"}

    def folder(grid: int = 4, **changes: Any) -> str:
        (spec,) = recipe(latents=[{**table, **changes}]).active
        return plan_of(spec, prepared, tmp_path, grid).folder.name

    same = [folder(), folder(tap="blocks.0"), folder(weight=2.0), folder(name="other"), folder(head="gaussian")]
    assert len(set(same)) == 1
    other = [folder(model="n"), folder(at=3), folder(grid=8), folder(format="int8"), folder(weights="random")]
    assert len({*same, *other}) == 1 + len(other)
    assert folder(grid=8, level="global") == folder(grid=4, level="global")


def test_a_recipe_is_a_file_or_a_name_of_the_package() -> None:
    with pytest.raises(InputError, match=r"no recipe nothing.*cifar10-small"):
        recipe_path("nothing")

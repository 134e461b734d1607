"""The weights that come with the package: whole, small, described, found by name, and told a class."""

from pathlib import Path

import pytest
import torch
from reed_core.errors import InputError
from reed_image.bundled import BUNDLED, DEFAULT, weights_folder
from reed_image.model import load

FOLDERS = sorted(path.parent for path in BUNDLED.glob("*/config.json"))
ROWS = ("data", "split", "recipe", "guidance", "steps", "hardware", "seed")


def test_they_are_there_and_small() -> None:
    assert weights_folder(DEFAULT) in FOLDERS
    for folder in FOLDERS:
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 16 * 2**20
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert all(f"| {row} |" in card for row in ROWS)


def test_a_bare_name_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).mkdir()
    (tmp_path / "own").mkdir()
    assert weights_folder(DEFAULT) == BUNDLED / DEFAULT
    assert weights_folder(f"./{DEFAULT}") == Path(f"./{DEFAULT}")
    assert weights_folder("own") == Path("own")
    with pytest.raises(InputError, match="comes with cifar10"):
        weights_folder("none")


def test_what_they_draw_has_a_class_and_a_place() -> None:
    """The same noise gives other pictures for other classes, within [0, 1], as often as it is asked."""
    model = load(DEFAULT)
    assert model.config.network.classes == len(model.config.class_names) == 10
    ships = model.sample(2, ["ship"], seed=1, steps=6, sampler="euler")
    frogs = model.sample(2, ["frog"], seed=1, steps=6, sampler="euler")
    assert torch.equal(ships, model.sample(2, ["ship"], seed=1, steps=6, sampler="euler"))
    assert (ships - frogs).abs().mean() > 0.02
    assert 0 <= float(ships.min()) < float(ships.max()) <= 1
    blue = (ships[:, 2] - ships[:, 1]).mean() - (frogs[:, 2] - frogs[:, 1]).mean()
    assert blue > 0  # sea and sky against grass and leaves

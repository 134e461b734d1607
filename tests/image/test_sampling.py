"""Sampling: a picture belongs to its seed, number and class, and every way of drawing agrees with a plain one."""

import csv
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_image.autoencoder import AutoencoderSpec
from reed_image.grid import GAP, arranged, check_out, to_pixels, write_folder, write_grid
from reed_image.model import ImageModel, ModelConfig
from reed_image.network import Condition, SiTConfig
from reed_image.sample import Request, class_label, class_numbers, decoder_of, draw, pictures
from torch import Tensor

NETWORK = SiTConfig(size=8, channels=3, patch=4, width=32, depth=2, heads=2, classes=3)
NAMES = ("ant", "bee", "cat, or dog")


def random_model(seed: int = 0, **changes: Any) -> ImageModel:
    torch.manual_seed(seed)
    model = ImageModel(ModelConfig(network=NETWORK.model_copy(update=changes), class_names=() if changes else NAMES))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


@pytest.fixture(scope="module")
def model() -> ImageModel:
    return random_model()


def drawn(model: ImageModel, request: Request, batch: int = 64, worse: ImageModel | None = None) -> Tensor:
    return torch.cat([one.x for one in draw(model, request, worse, batch)])


@pytest.mark.parametrize("sampler", ["euler", "heun", "sde"])
def test_a_picture_is_its_own_whatever_the_batch(model: ImageModel, sampler: Any) -> None:
    whole = drawn(model, Request(7, seed=3, steps=3, sampler=sampler))
    for batch in (1, 3):
        assert torch.allclose(drawn(model, Request(7, seed=3, steps=3, sampler=sampler), batch), whole, atol=1e-5)
    assert torch.allclose(drawn(model, Request(2, first=4, seed=3, steps=3, sampler=sampler)), whole[4:6], atol=1e-5)
    assert (drawn(model, Request(7, seed=4, steps=3, sampler=sampler)) - whole).flatten(1).norm(dim=1).min() > 1
    assert (whole[0] - whole[3]).norm() > 1  # of one class, but not of one noise


def test_euler_is_the_sum_of_its_steps(model: ImageModel) -> None:
    process, steps = model.process, 4
    found = drawn(model, Request(1, first=5, steps=steps, sampler="euler", labels=(2,)))
    x, c = NoiseSource(0, [5]).normal(model.shape), Condition(torch.tensor([2]))
    times = torch.linspace(process.t_max, process.t_min, steps + 1).tolist()
    with torch.no_grad():
        for t, s in pairwise(times):
            x = x + (s - t) * model(x, torch.tensor([t]), c)
        x = x - process.t_min * model(x, torch.tensor([process.t_min]), c)
    assert torch.allclose(found, x, atol=1e-5)


def test_between_two_pictures_lie_samples_of_the_same_law(model: ImageModel) -> None:
    row = drawn(model, Request(1, steps=2, labels=(1,), between=5, seed=9))
    ends = drawn(model, Request(2, steps=2, labels=(1,), seed=9))
    assert torch.allclose(row[[0, 4]], ends, atol=1e-4)
    middle = NoiseSource(9, [0]).normal(model.shape) + NoiseSource(9, [1]).normal(model.shape)
    found = drawn(model, Request(1, steps=1, labels=(1,), between=3, seed=9, sampler="euler"))[1:2]
    with torch.no_grad():
        c, x = Condition(torch.tensor([1])), middle * math.sqrt(0.5)
        x = x - 0.998 * model(x, torch.tensor([0.999]), c)
        assert torch.allclose(found, x - 0.001 * model(x, torch.tensor([0.001]), c), atol=1e-4)
    rows = drawn(model, Request(2, steps=1, between=3, seed=9), batch=2)
    assert torch.allclose(rows[3:], drawn(model, Request(1, first=1, steps=1, between=3, seed=9)), atol=1e-5)


def test_guidance(model: ImageModel) -> None:
    plain = drawn(model, Request(2, steps=2, labels=(1,)))
    null = drawn(model, Request(2, steps=2, labels=(-1,)))
    assert torch.allclose(drawn(model, Request(2, steps=2, labels=(1,), scale=0.0)), null, atol=1e-5)
    assert (drawn(model, Request(2, steps=2, labels=(1,), scale=3.0)) - plain).abs().max() > 1e-3
    never = Request(2, steps=2, labels=(1,), scale=3.0, interval=(0.9995, 1.0))
    assert torch.allclose(drawn(model, never), plain, atol=1e-5)
    guided = Request(2, steps=2, labels=(1,), scale=2.0)
    assert torch.allclose(drawn(model, guided, worse=model), plain, atol=1e-4)
    assert (drawn(model, guided, worse=random_model(1)) - plain).abs().max() > 1e-3


def test_classes_by_name_number_or_in_turn(model: ImageModel) -> None:
    config = model.config
    assert class_numbers(config, ["cat, or dog", 0, "1", "none"]) == (2, 0, 1, -1)
    assert class_numbers(config, []) is None
    assert [class_label(config, number) for number in (-1, 0)] == ["", "ant"]
    assert next(draw(model, Request(5, steps=1))).labels == (0, 1, 2, 0, 1)
    assert next(draw(model, Request(3, steps=1, first=1, labels=(2, 0)))).labels == (0, 2, 0)
    for wrong in ("elk", "3", "-2", "1.5"):
        with pytest.raises(InputError, match="0 to 2"):
            class_numbers(config, [wrong])


def test_what_cannot_be_drawn_is_refused(model: ImageModel) -> None:
    for settings in (
        {"num": 0},
        {"first": -1},
        {"steps": 0},
        {"scale": -1.0},
        {"scale": math.nan},
        {"interval": (0.5, 0.1)},
        {"between": 1},
    ):
        with pytest.raises(InputError):
            Request(**{"num": 1, **settings})  # type: ignore[arg-type]
    free = random_model(classes=0)
    with pytest.raises(InputError, match="without classes"):
        drawn(free, Request(1, steps=1, scale=2.0))
    with pytest.raises(InputError, match="trained without"):
        class_numbers(free.config, ["ant"])
    assert drawn(free, Request(1, steps=1)).shape == (1, 3, 8, 8)
    with pytest.raises(InputError, match="another"):
        drawn(model, Request(1, steps=1, scale=2.0), worse=free)
    with pytest.raises(InputError, match="no class 3"):
        drawn(model, Request(1, steps=1, labels=(3,)))
    with pytest.raises(InputError, match="pixels"):
        decoder_of(model.config, "some/where")


def test_pictures_from_a_model_and_their_scale(model: ImageModel) -> None:
    found = model.sample(3, ["bee"], seed=2, steps=1)
    x = drawn(model, Request(3, seed=2, steps=1, labels=(1,)))
    assert torch.allclose(found, ((x + 1) / 2).clamp(0, 1))
    spec = AutoencoderSpec(
        name="pixels",
        kind="PixelCodec",
        channels=3,
        factor=1,
        stochastic=False,
        shift=(0.1, 0.2, 0.3),
        scale=(2.0,) * 3,
        weights="",
    )
    other = ImageModel(model.config.model_copy(update={"autoencoder": spec}))
    other.load_state_dict(model.state_dict())
    raw = x / 2 + torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    assert torch.allclose(pictures(other.eval(), 3, [1], seed=2, steps=1), ((raw + 1) / 2).clamp(0, 1), atol=1e-6)


def test_grids_and_folders_hold_the_pictures(tmp_path: Path) -> None:
    images = torch.rand(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    write_grid(images, tmp_path / "grid.png", columns=2, zoom=3)
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (3 * (12 + GAP) + GAP, 2 * (18 + GAP) + GAP, 3)
    top, left = GAP + 12 + GAP, GAP + 18 + GAP  # picture 3: second row, second column
    assert (sheet[top : top + 12 : 3, left : left + 18 : 3] == to_pixels(images)[3]).all()
    assert (sheet[-12 - GAP :, left:] == 255).all()
    assert arranged(images[:4]).size == (2 * (6 + GAP) + GAP, 2 * (4 + GAP) + GAP)
    batches = [(images[:3], (0, 1, 2), ("a", "b", "")), (images[3:], (3, 4), ("a", "b"))]
    assert write_folder(batches, tmp_path / "many") == 5
    with (tmp_path / "many" / "pictures.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["a", "b", "", "a", "b"]
    assert (np.asarray(Image.open(tmp_path / "many" / rows[4]["file"])) == to_pixels(images)[4]).all()
    assert check_out(tmp_path / "new.png")
    assert not check_out(tmp_path / "new")
    for place in (tmp_path / "many", tmp_path / "x.jpg"):
        with pytest.raises(InputError):
            check_out(place)
    for place in (tmp_path / "many", tmp_path / "grid.png" / "below"):
        with pytest.raises(InputError):
            write_folder(batches, place)


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Any:
        yield torch.rand(1, 3, 4, 4), (0,), ("",)
        raise InputError("no more")

    with pytest.raises(InputError, match="no more"):
        write_folder(broken(), tmp_path / "many")
    assert not list(tmp_path.iterdir())

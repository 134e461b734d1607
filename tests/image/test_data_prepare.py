"""Preparing: what lies in the folder is what the autoencoder makes of the pictures, whatever happened on the way."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from picture_files import encoded, picture, write_folder
from PIL import Image
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.representation import Items
from reed_image.autoencoder import Autoencoder, KlCodec, load_autoencoder
from reed_image.data import SD_LATENTS, Prepared, open_prepared, open_source, prepare, training_data
from reed_image.data import writer as writing
from reed_image.data.crop import square
from reed_image.data.growing import GrowingArray
from reed_image.data.source import Picture, Source
from torch import nn

PIXELS = load_autoencoder("pixels")


def tiny(scale: float = 0.5) -> Autoencoder:
    torch.manual_seed(0)
    module = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=2,
        latent_channels=4,
        mid_block_add_attention=False,
    )
    return Autoencoder("tiny", KlCodec(module), (0.1,) * 4, (scale,) * 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_folder(tmp_path / "pictures", each=5)
    (made / "ant" / "1.png").write_bytes(b"no picture")
    (made / "bee" / "0.png").write_bytes(encoded(picture(0))[:-60])
    (made / "bee" / "3.png").write_bytes(encoded(picture(0, 3, 40)))
    return made


def run(source: Source, out: Path, autoencoder: Any = PIXELS, **options: Any) -> Prepared:
    return prepare(source, out, autoencoder, **{"size": 16, "batch": 4, "progress": False, **options})


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pixels_labels_names_and_what_was_skipped(tmp_path: Path, folder: Path) -> None:
    found = run(open_source(folder), tmp_path / "out", flips=True)
    kept = ["ant/0", "ant/2", "ant/3", "ant/4", "bee/1", "bee/2", "bee/4"]
    assert found.names == tuple(f"{name}.png" for name in kept)
    assert found.labels.tolist() == [0] * 4 + [1] * 3
    assert found.manifest.classes == ("ant", "bee")
    assert found.manifest.skipped == {"not an image": 1, "damaged": 1, "too small": 1}
    skipped = (tmp_path / "out" / "skipped.tsv").read_text().splitlines()
    assert skipped == ['not an image\t"ant/1.png"', 'damaged\t"bee/0.png"', 'too small\t"bee/3.png"']
    assert len(found) == 14
    for place, name in enumerate(kept):
        pixels = square(Image.open(folder / f"{name}.png"), 16, "adm")
        for item, expected in ((2 * place, pixels), (2 * place + 1, pixels[:, ::-1])):
            shown = found.pictures([item])[0].permute(1, 2, 0).numpy() * 255
            np.testing.assert_allclose(shown, expected, atol=1e-4)
            latents = found.latents([item])[0].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(latents, expected / 127.5 - 1, atol=1e-3)
    assert found.labels_of([0, 1, 13]).tolist() == [0, 0, 1]
    assert not {"progress.json"} & set(content(tmp_path / "out"))


def test_latents_of_a_vae_are_its_moments(tmp_path: Path, folder: Path) -> None:
    vae = tiny()
    found = run(open_source(folder), tmp_path / "out", vae, flips=True, dtype="float32")
    every = list(range(len(found)))
    moments = vae.moments(found.pictures(every))
    assert moments.std is not None
    torch.testing.assert_close(found.latents(every), moments.mean, rtol=1e-4, atol=1e-5)
    noise = [NoiseSource(3, range(len(every))) for _ in range(2)]
    drawn = moments.mean + moments.std * noise[0].normal(moments.mean.shape[1:])
    torch.testing.assert_close(found.latents(every, noise[1]), drawn, rtol=1e-4, atol=1e-5)
    stored = torch.tensor(found.manifest.mean), torch.tensor(found.manifest.std)
    torch.testing.assert_close(stored[0], moments.mean.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    expected = (moments.mean.var((0, 2, 3), correction=0) + moments.std.square().mean((0, 2, 3))).sqrt()
    torch.testing.assert_close(stored[1], expected, rtol=1e-4, atol=1e-5)
    assert found.manifest.autoencoder == vae.spec


def test_fitted_latents_have_mean_zero_and_deviation_one(tmp_path: Path, folder: Path) -> None:
    vae = tiny()
    found = run(open_source(folder), tmp_path / "out", vae, fit=100, dtype="float32")
    np.testing.assert_allclose(found.manifest.mean, 0, atol=1e-4)
    np.testing.assert_allclose(found.manifest.std, 1, atol=1e-4)
    held = found.manifest.autoencoder
    again = Autoencoder("tiny", vae.codec, held.shift, held.scale)
    plain = vae.decode(vae.moments(found.pictures([0, 1])).mean)
    torch.testing.assert_close(again.decode(found.latents([0, 1])), plain, rtol=1e-3, atol=1e-4)


class Killed(Exception):  # noqa: N818
    """In place of a kill."""


class Stopping:
    """A source that breaks off."""

    def __init__(self, source: Source, after: int) -> None:
        self.source, self.after = source, after
        self.description, self.classes, self.fingerprint = source.description, source.classes, source.fingerprint

    def __len__(self) -> int:
        return len(self.source)

    def pictures(self, start: int = 0) -> Iterator[Picture]:
        for place, one in enumerate(self.source.pictures(start), start):
            if place >= self.after:
                raise Killed
            yield one


@pytest.mark.parametrize("after", [4, 7])
@pytest.mark.parametrize("saved", [True, False])
def test_an_interrupted_preparation_ends_the_same(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, after: int, saved: bool
) -> None:
    """With the progress noted after every batch, or never: the same bytes, and only the rest is encoded again."""
    vae = tiny()
    options: dict[str, Any] = {"flips": True, "batch": 2, "fit": 1}
    whole = run(open_source(folder), tmp_path / "whole", vae, **options)
    monkeypatch.setattr("reed_image.data.preparation._SAVE_EVERY", -1.0 if saved else 1e9)
    for limit in (after, after + 2):
        with pytest.raises(Killed):
            run(Stopping(open_source(folder), limit), tmp_path / "part", vae, **options)
        for name in ("mean.npy", "labels.npy", "names.txt"):  # what reached the disk after the progress was noted
            with (tmp_path / "part" / name).open("ab") as file:
                file.write(b"torn")
    with pytest.raises(InputError, match="no prepared pictures in"):
        open_prepared(tmp_path / "part")
    run(open_source(folder), tmp_path / "part", vae, **options)
    assert content(tmp_path / "part") == content(tmp_path / "whole")
    assert whole.fingerprint == open_prepared(tmp_path / "part").fingerprint


def test_a_finished_folder_is_opened_and_another_recipe_refused(tmp_path: Path, folder: Path) -> None:
    source = open_source(folder)
    first = run(source, tmp_path / "out")
    before = (tmp_path / "out" / "mean.npy").stat().st_mtime_ns
    assert run(source, tmp_path / "out").fingerprint == first.fingerprint
    assert (tmp_path / "out" / "mean.npy").stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"prepared otherwise \(crop differ\)"):
        run(source, tmp_path / "out", crop="resize")
    (folder / "ant" / "9.png").write_bytes(encoded(picture(9)))
    with pytest.raises(InputError, match=r"\(source differ\)"):
        run(open_source(folder), tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds no prepared pictures"):
        run(source, tmp_path / "other")


def test_damage_is_seen(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "out"
    run(open_source(folder), out).verify()
    shutil.copytree(out, tmp_path / "short")
    with (tmp_path / "short" / "mean.npy").open("r+b") as file:
        file.truncate(500)
    with pytest.raises(InputError, match="holds 500 bytes instead of"):
        open_prepared(tmp_path / "short")
    data = bytearray((out / "mean.npy").read_bytes())
    data[-1] ^= 1
    (out / "mean.npy").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        open_prepared(out).verify()


def test_nothing_usable_and_wrong_size_are_one_line(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match=r"no picture of image folder pictures can be used \(.*9 too small"):
        run(open_source(folder), tmp_path / "out", smallest=1000)
    with pytest.raises(InputError, match="pictures of 15 pixels; tiny needs a multiple of 2"):
        run(open_source(folder), tmp_path / "two", tiny(), size=15)


def test_limit_and_without_pictures(tmp_path: Path, folder: Path) -> None:
    found = run(open_source(folder), tmp_path / "out", limit=4, images=False)
    assert found.names == ("ant/0.png", "ant/2.png", "ant/3.png")
    with pytest.raises(InputError, match="prepared without its pictures"):
        found.pictures([0])


def test_items_for_encoders(tmp_path: Path, folder: Path) -> None:
    found = run(open_source(folder), tmp_path / "out", flips=True)
    items = found.items()
    assert isinstance(items, Items)
    batch = items.batch([3, 0])
    assert (batch.c.names, batch.c.labels.tolist(), len(items)) == (("ant/2.png", "ant/0.png"), [0, 0], 14)
    assert batch.c.mirrored.tolist() == [True, False]
    torch.testing.assert_close(batch.x_0, found.pictures([3, 0]))
    torch.testing.assert_close(items.batch([3]).x_0.flip(3), items.batch([2]).x_0)


def test_training_takes_either_copy_and_draws_anew(tmp_path: Path, folder: Path) -> None:
    found = run(open_source(folder), tmp_path / "out", tiny(), flips=True, dtype="float32")
    data = training_data(found, 7, null_class=9, drop=0.5)
    (items,) = data.plan(0)
    seen, dropped = set(), 0
    for epoch in range(8):
        batch = data.batch(items, NoiseSource(0, range(7 * epoch, 7 * epoch + 7)))
        assert isinstance(batch.x_0, torch.Tensor)
        for place, item in enumerate(items):
            distance = [
                ((batch.x_0[place] - found.latents([row])[0]) / torch.from_numpy(np.array(found.std)[item, copy])).abs()
                for copy, row in enumerate((2 * item, 2 * item + 1))
            ]
            copy = int(distance[1].max() < distance[0].max())
            assert 0 < distance[copy].max() < 6
            seen.add((item, copy))
            dropped += int(batch.c[place] == 9)
            assert int(batch.c[place]) in (9, int(found.labels[item]))
    assert len(seen) > 10
    assert 10 < dropped < 46


def test_training_without_labels(tmp_path: Path, folder: Path) -> None:
    found = run(open_source(folder / "ant"), tmp_path / "out")
    batch = training_data(found, 2).batch([0, 1], NoiseSource(0, range(2)))
    assert batch.c is None
    torch.testing.assert_close(batch.x_0, found.latents([0, 1]))


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    from picture_files import write_parquet

    rows = [(encoded(picture(seed)), "same.png", seed % 2) for seed in range(3)]
    source = open_source(write_parquet(tmp_path / "a.parquet", rows))
    assert run(source, tmp_path / "out").names == ("same.png", "same.png#1", "same.png#2")


def test_latents_made_elsewhere(tmp_path: Path) -> None:
    """REPA's files: the stored mean and deviation, times SD's scale; the flipped ones are not ours to invent."""
    rng, disk = np.random.default_rng(0), tmp_path / "disk"
    (disk / "images").mkdir(parents=True)
    (disk / "vae-sd").mkdir()
    for number in range(3):
        (disk / "images" / f"img{number:08d}.png").write_bytes(encoded(picture(number, 32, 32)))
    made = {number: np.abs(rng.normal(size=(8, 4, 4))).astype(np.float32) for number in (0, 2)}
    for number, value in made.items():
        np.save(disk / "vae-sd" / f"img-mean-std-{number:08d}.npy", value)
    (disk / "vae-sd" / "dataset.json").write_text(json.dumps({"labels": [["img-mean-std-00000002.npy", 5]]}))
    found = run(open_source(disk), tmp_path / "out", SD_LATENTS, size=32, dtype="float32")
    assert (found.names, found.labels.tolist()) == (("img00000000.png", "img00000002.png"), [-1, 5])
    assert found.manifest.skipped == {"no latents": 1}
    assert found.std is not None
    np.testing.assert_allclose(found.mean[1, 0], made[2][:4] * 0.18215, rtol=1e-6)
    np.testing.assert_allclose(found.std[1, 0], made[2][4:] * 0.18215, rtol=1e-6)
    with pytest.raises(InputError, match="cannot be mirrored"):
        run(open_source(disk), tmp_path / "two", SD_LATENTS, size=32, flips=True)


def test_growing_array_is_an_npy_of_any_length(tmp_path: Path) -> None:
    rows = np.arange(60, dtype=np.float16).reshape(20, 3)
    array = GrowingArray(tmp_path / "a.npy", (3,), np.float16)
    for start in range(0, 20, 7):
        array.append(rows[start : start + 7])
    array.close()
    assert np.array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), rows)
    array = GrowingArray(tmp_path / "a.npy", (3,), np.float16, rows=4)
    array.append(rows[9:])
    array.close()
    assert np.array_equal(np.load(tmp_path / "a.npy"), np.concatenate([rows[:4], rows[9:]]))
    with pytest.raises(InputError, match="fewer than 99 rows"):
        GrowingArray(tmp_path / "a.npy", (3,), np.float16, rows=99)
    with pytest.raises(ValueError, match="rows of shape"):
        GrowingArray(tmp_path / "b.npy", (3,), np.float16).append(np.zeros((2, 4)))


def test_what_float16_cannot_hold_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="float16 cannot; store float32"):
        run(open_source(folder), tmp_path / "out", tiny(scale=1e6))


def test_a_full_disk_leaves_no_finished_folder(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        run(open_source(folder), tmp_path / "out")
    monkeypatch.undo()
    assert len(run(open_source(folder), tmp_path / "out")) == 7


def test_real_pictures(tmp_path: Path, reed_data: Path) -> None:
    source = open_source(reed_data / "image" / "clothing10_valid.parquet")
    found = run(source, tmp_path / "out", size=32, limit=40)
    assert (len(found), found.manifest.skipped) == (40, {})
    assert nn.functional.mse_loss((found.latents(range(40)) + 1) / 2, found.pictures(range(40))) < 1e-6

"""Sources of pictures: all of them list the same pictures of the same disk, in one order, from any place on."""

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import encoded, picture, write_folder, write_parquet, write_zip
from PIL import Image
from reed_core.errors import InputError
from reed_image.data import open_source
from reed_image.data.image_file import UnusableError
from reed_image.data.repa import read_moments
from reed_image.data.source import Source


def listed(source: Source, start: int = 0) -> list[tuple[str, int, bytes]]:
    return [(one.name, one.label, one.read()) for one in source.pictures(start)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pictures")


def make(kind: str, tmp_path: Path, folder: Path) -> Source:
    rows = [
        (file.read_bytes(), file.relative_to(folder).as_posix(), ["ant", "bee"].index(file.parent.name))
        for file in sorted(folder.rglob("*.png"))
    ]
    if kind == "zip":
        return open_source(write_zip(tmp_path / "a.zip", folder))
    if kind == "zip in a folder":
        return open_source(write_zip(tmp_path / "a.zip", folder, "data/train/"))
    if kind == "parquet":
        return open_source(write_parquet(tmp_path / "a.parquet", rows))
    if kind == "parquet folder":
        (tmp_path / "shards").mkdir()
        write_parquet(tmp_path / "shards" / "b.parquet", rows[4:])
        write_parquet(tmp_path / "shards" / "a.parquet", rows[:4])
        return open_source(tmp_path / "shards")
    if kind == "parquet, classes as text":
        named = [(data, name, ["ant", "bee"][label]) for data, name, label in rows]
        return open_source(write_parquet(tmp_path / "t.parquet", named))
    return open_source(folder)


KINDS = ["folder", "zip", "zip in a folder", "parquet", "parquet folder", "parquet, classes as text"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_source_lists_the_same(tmp_path: Path, folder: Path, kind: str) -> None:
    source = make(kind, tmp_path, folder)
    expected = [
        (f"{name}/{number}.png", label, (folder / name / f"{number}.png").read_bytes())
        for label, name in enumerate(("ant", "bee"))
        for number in range(3)
    ]
    assert isinstance(source, Source)
    assert source.classes == ("ant", "bee")
    assert listed(source) == expected
    assert len(source) == 6
    for start in range(7):
        assert listed(source, start) == expected[start:]
    again = make(kind, tmp_path, folder) if kind != "parquet folder" else open_source(tmp_path / "shards")
    assert again.fingerprint == source.fingerprint


def test_the_fingerprint_sees_a_new_file_and_another_size(folder: Path) -> None:
    before = open_source(folder).fingerprint
    (folder / "ant" / "3.png").write_bytes(encoded(picture(99)))
    more = open_source(folder).fingerprint
    (folder / "ant" / "3.png").write_bytes(encoded(picture(99, 60, 60)))
    assert len({before, more, open_source(folder).fingerprint}) == 3


def test_hugging_face_dataset(tmp_path: Path, folder: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra reed-image[datasets]")
    files = sorted(folder.rglob("*.png"))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})
    made = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
            "label": [["ant", "bee"].index(file.parent.name) for file in files],
        },
        features=features,
    )
    source = open_source(made)
    assert source.classes == ("ant", "bee")
    assert [(label, data) for _, label, data in listed(source)] == [
        (["ant", "bee"].index(file.parent.name), file.read_bytes()) for file in files
    ]
    assert listed(source, 4) == listed(source)[4:]
    made.save_to_disk(tmp_path / "saved")
    assert [one[1:] for one in listed(open_source(tmp_path / "saved"))] == [one[1:] for one in listed(source)]
    with pytest.raises(InputError, match=r"splits train, test; choose one"):
        open_source(datasets.DatasetDict({"train": made, "test": made}))


def test_a_dataset_that_cannot_be_had_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra reed-image[datasets]")

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("long text\nwith a host")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(InputError, match=r"^data set 'nobody/nothing', split 'train', cannot be had") as caught:
        open_source("nobody/nothing")
    assert "\n" not in str(caught.value)
    assert "host" not in str(caught.value)


def test_flat_folder_has_no_labels_and_dataset_json_gives_them(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(number)))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    source = open_source(tmp_path)
    assert (source.classes, [one[1] for one in listed(source)]) == ((), [-1, -1, -1])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["0.png", 7], ["2.png", 1]]}))
    assert [one[1] for one in listed(open_source(tmp_path))] == [7, -1, 1]
    (tmp_path / "dataset.json").write_text('{"labels": 3}')
    with pytest.raises(InputError, match=r"dataset.json is no list of labels"):
        open_source(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_are_followed_once(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "ant").symlink_to(folder / "ant")
    (folder / "ant" / "loop").symlink_to(tmp_path / "linked" / "ant")
    assert [one[0] for one in listed(open_source(tmp_path / "linked"))] == ["ant/0.png", "ant/1.png", "ant/2.png"]


def write_repa(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(4):
        here = folder / "images" / f"{number // 2:05d}"
        there = folder / "vae-sd" / f"{number // 2:05d}"
        here.mkdir(parents=True, exist_ok=True)
        there.mkdir(parents=True, exist_ok=True)
        (here / f"img{number:08d}.png").write_bytes(encoded(picture(number)))
        if number != 1:  # a listing paired by order would be shifted from here on
            moments = np.concatenate([rng.normal(size=(4, 4, 4)), np.full((4, 4, 4), 0.1 + number)])
            np.save(there / f"img-mean-std-{number:08d}.npy", moments.astype(np.float32))
    labels = [[f"{number // 2:05d}/img-mean-std-{number:08d}.npy", 10 + number] for number in (3, 2, 0)]
    (folder / "vae-sd" / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def test_repa_pairs_by_number(tmp_path: Path) -> None:
    source = open_source(write_repa(tmp_path))
    found = list(source.pictures())
    assert [one.label for one in found] == [10, -1, 12, 13]
    for number in (0, 2, 3):
        place = found[number].moments
        assert place is not None
        assert read_moments(place)[4, 0, 0] == np.float32(0.1 + number)
        assert found[number].name == f"{number // 2:05d}/img{number:08d}.png"
    lacking = found[1].moments
    assert lacking is not None
    with pytest.raises(UnusableError, match="no latents"):
        read_moments(lacking)


def test_repa_refuses_two_latents_of_one_number(tmp_path: Path) -> None:
    write_repa(tmp_path)
    np.save(tmp_path / "vae-sd" / "00000" / "other-00000000.npy", np.zeros((8, 4, 4), np.float32))
    with pytest.raises(InputError, match="two latents of number 00000/0"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"PK nothing", "cannot be read as a zip"),
        ("a.parquet", b"PAR1 nothing", "cannot be read as parquet"),
        ("a.tar", b"", "neither a .zip nor a .parquet"),
        ("empty", None, "no image in"),
        ("absent.zip", None, "no file or folder"),
    ],
)
def test_what_is_no_source_is_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif name == "empty":
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=message) as caught:
        open_source(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_columns_are_named_or_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = encoded(picture(0))
    pq.write_table(pa.table({"photo": [data], "kind": [4], "x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column of images that can be told from photo, kind, x"):
        open_source(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column 'foto'"):
        open_source(tmp_path / "a.parquet", image_column="foto")
    source = open_source(tmp_path / "a.parquet", image_column="photo", label_column="kind")
    assert listed(source) == [("a/00000000", 4, data)]


def test_parquet_rows_may_point_at_files(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(encoded(picture(0)))
    write_parquet(tmp_path / "a.parquet", [(None, "0.png", 0), (None, "absent.png", 1), (None, None, 1)])
    first, second, third = open_source(tmp_path / "a.parquet").pictures()
    assert Image.open(io.BytesIO(first.read())).size == (40, 32)
    for lacking in (second, third):
        with pytest.raises(UnusableError, match="missing"):
            lacking.read()


def test_real_parquet(reed_data: Path) -> None:
    source = open_source(reed_data / "image" / "cifar10_test.parquet")
    assert (len(source), source.classes[:2]) == (5000, ("airplane", "automobile"))
    late = next(source.pictures(4321))
    assert Image.open(io.BytesIO(late.read())).size == (32, 32)
    assert late.label in range(10)

"""Arrays as training data: a gather is a loop over rows, and what is chosen at random belongs to the sample."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.noise import NoiseSource
from reed_core.train import DataSource
from reed_core.train.arrays import ArrayData
from reed_core.train.rows import Rows, mapped
from safetensors.torch import save_file
from torch import Tensor

N, COPIES = 12, 2


def values(rows: int, *shape: int) -> Tensor:
    return torch.arange(rows * int(np.prod(shape)), dtype=torch.float32).view(rows, *shape)


class Numbers:
    """As a cache: the z of a row is its number."""

    def __len__(self) -> int:
        return N * COPIES

    def gather(self, items: Sequence[int]) -> Representation:
        return Representation(torch.tensor(items, dtype=torch.float32)[:, None])


def flipped(**more: Any) -> ArrayData:
    return ArrayData(
        Rows(values(N * COPIES, 3, 2)), batch_size=5, labels=torch.arange(N) % 4, copies=COPIES,
        latents={"cache": Numbers(), "rows": Rows(values(N * COPIES, 1))}, **more,
    )  # fmt: skip


def test_rows_of_mapped_files_are_those_of_one_array(tmp_path: Path) -> None:
    whole = values(10, 2, 3)
    np.save(tmp_path / "x.npy", whole[:4].numpy())
    save_file({"x": whole[4:9].contiguous(), "y": torch.zeros(1)}, tmp_path / "b.safetensors")
    save_file({"x": whole[9:].contiguous()}, tmp_path / "c.safetensors")
    rows = Rows.read(*(tmp_path / name for name in ("x.npy", "b.safetensors", "c.safetensors")), name="x")
    wanted = torch.tensor([9, 0, 4, 3, 8, 4])
    assert len(rows) == 10
    assert torch.equal(rows.gather(wanted), torch.stack([whole[row] for row in wanted.tolist()]))
    assert torch.equal(rows.to("cpu").gather(wanted), whole[wanted])
    assert torch.equal(Rows.read(tmp_path / "x.npy").gather(torch.tensor([1])), whole[1:2])
    with pytest.raises(IndexError, match="row"):
        rows.gather(torch.tensor([10]))
    with pytest.raises(InputError, match="x, y; name one"):
        Rows.read(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="no 'z'"):
        Rows.read(tmp_path / "b.safetensors", name="z")


def test_writing_to_a_mapped_array_leaves_the_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3, dtype=np.float32))
    save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors")
    for name in ("x.npy", "x.safetensors"):
        mapped(tmp_path / name)["x"].fill_(1.0)
        assert float(mapped(tmp_path / name)["x"].sum()) == 0.0


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors"])
def test_a_damaged_or_foreign_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(InputError, match="cannot read arrays"):
        mapped(path)
    if path.suffix == ".npy":
        np.save(path, np.ones(1000))
    else:
        save_file({"x": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot read arrays"):
        mapped(path)
    with pytest.raises(InputError, match=r"expected a \.npy"):
        mapped(tmp_path / "x.zip")


def test_rows_of_different_kinds_do_not_make_one() -> None:
    for other in (torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.float16)):
        with pytest.raises(InputError, match="one shape, type"):
            Rows(torch.zeros(2, 3), other)
    with pytest.raises(InputError, match="no array"):
        Rows()


def test_an_epoch_has_every_item_once() -> None:
    data = flipped()
    assert isinstance(data, DataSource)
    assert [len(batch) for batch in data.plan(0)] == [5, 5, 2]
    assert sorted(item for batch in data.plan(0) for item in batch) == list(range(N))
    assert data.plan(0) == data.plan(0) != data.plan(1)
    assert [len(batch) for batch in flipped(whole_batches=True).plan(0)] == [5, 5]


def test_copies_and_latents_are_of_the_same_row() -> None:
    data, items = flipped(), [3, 3, 3, 3, 7, 0, 11]
    batch = data.batch(items, NoiseSource(0, range(7)))
    assert callable(batch.z)
    z = batch.z()
    rows = z["cache"].z[:, 0].long()
    assert rows.div(COPIES, rounding_mode="floor").tolist() == items
    assert {int(row) % COPIES for row in rows[:4]} == {0, 1}
    assert torch.equal(batch.x_0, values(N * COPIES, 3, 2)[rows])
    assert torch.equal(z["rows"].z, values(N * COPIES, 1)[rows])
    assert batch.c.tolist() == [item % 4 for item in items]


def test_latents_are_read_only_when_they_are_asked_for() -> None:
    class Refuses(Numbers):
        def gather(self, items: Sequence[int]) -> Representation:
            raise OSError("read")

    data = ArrayData(Rows(values(N * COPIES, 3)), 4, latents={"z": Refuses()})
    batch = data.batch([0, 1], NoiseSource(0, range(2)))
    assert callable(batch.z)
    with pytest.raises(OSError, match="read"):
        batch.z()


def test_choices_belong_to_the_sample_not_to_the_batch() -> None:
    data = flipped(drop=0.5, null_class=4)
    together = data.batch(list(range(8)), NoiseSource(5, range(40, 48)))
    for place in range(8):
        alone = data.batch([place], NoiseSource(5, [40 + place]))
        assert torch.equal(alone.x_0[0], together.x_0[place])
        assert alone.c[0] == together.c[place]


def test_classes_are_dropped_as_often_as_asked() -> None:
    data = flipped(drop=0.2, null_class=4)
    items = [item % N for item in range(3000)]
    c = data.batch(items, NoiseSource(1, range(3000))).c
    kept = c != 4
    assert abs(float(kept.float().mean()) - 0.8) < 0.03  # four standard errors
    assert torch.equal(c[kept], (torch.tensor(items) % 4)[kept])
    assert 4 not in flipped(null_class=4).batch(items, NoiseSource(1, range(3000))).c


def test_fields_masks_and_a_transform() -> None:
    mask = torch.arange(3)[None] <= torch.arange(N)[:, None]
    data = ArrayData(
        {"place": Rows(values(N, 3, 2).half()), "kind": Rows(torch.arange(N * 3).view(N, 3))}, 4, mask=Rows(mask),
        transform=lambda x_0, noise: {**x_0, "place": x_0["place"] / 2 + noise.normal((3, 2))},
    )  # fmt: skip
    batch = data.batch([2, 0], NoiseSource(0, [6, 7]))
    assert torch.equal(batch.x_0["place"], values(N, 3, 2)[[2, 0]] / 2 + NoiseSource(0, [6, 7]).normal((3, 2)))
    assert torch.equal(batch.x_0["kind"], torch.tensor([[6, 7, 8], [0, 1, 2]]))
    assert torch.equal(batch.mask, mask[[2, 0]])
    assert batch.c is None
    assert batch.z is None


def test_a_resident_set_gives_the_same_batches() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = flipped(drop=0.5, null_class=4)
    here, there = (one.batch([1, 5, 2], NoiseSource(0, range(3))) for one in (data, data.resident(device)))
    assert there.x_0.device.type == there.c.device.type == device
    assert torch.equal(here.x_0, there.x_0.cpu())
    assert torch.equal(here.c, there.c.cpu())


@pytest.mark.parametrize(("more", "match"), [
    ({"batch_size": 0}, "batch_size 0"), ({"drop": 1.5}, "probability"), ({"drop": 0.1}, "null_class"),
    ({"labels": torch.arange(3)}, "labels 3"), ({"copies": 5}, "5 for every item"),
    ({"latents": {"z": Rows(torch.zeros(11, 2))}}, "z 11"), ({"mask": Rows(torch.ones(2, 3))}, "mask 2"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(more: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ArrayData(**{"x_0": Rows(values(N, 3)), "batch_size": 4, **more})

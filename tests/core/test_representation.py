"""What an encoder says of itself, and that a cache gives back what was encoded, whole, and to its own encoder alone."""

import json
import pickle
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from reed_core import files, presets
from reed_core.errors import InputError
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.process import Interpolant
from reed_core.representation import (
    Cache,
    CacheBuilder,
    Encoder,
    ModuleEncoder,
    Shuffled,
    build_cache,
    fingerprint_module,
    open_cache,
)
from reed_core.train.data import Batch
from safetensors import safe_open
from torch import Tensor, nn

LEVELS = ("token", "pair", "global")
DIM, NEIGHBOURS = 5, 3


@dataclass(frozen=True)
class Chains:
    """Items of 1 to 6 elements whose values are functions of the item's number."""

    count: int = 11
    fingerprint: str = "chains-1"

    def __len__(self) -> int:
        return self.count

    def length(self, item: int) -> int:
        return 1 + (item * 7) % 6

    def batch(self, items: Sequence[int]) -> Batch:
        lengths = [self.length(item) for item in items]
        x_0 = torch.full((len(items), max(lengths) + 1, 2), torch.nan)  # padding must never be seen
        mask = torch.zeros(x_0.shape[:2], dtype=torch.bool)
        for place, item in enumerate(items):
            x_0[place, : lengths[place]] = item + torch.arange(2 * lengths[place]).view(-1, 2) / 100
            mask[place, : lengths[place]] = True
        return Batch(x_0, mask=mask)


@dataclass(frozen=True)
class Waves:
    """An encoder of all three levels; every third element is unknown to it."""

    level: Any = "token"
    name: str = "waves"
    dim: int = DIM
    fingerprint: str = "waves-1"
    scale: float = 1.0

    def __call__(self, x_0: Tensor, c: Any = None, mask: Tensor | None = None) -> Representation:
        z = self.scale * torch.sin(x_0.sum(-1, keepdim=True) * torch.arange(1, DIM + 1))
        assert mask is not None
        if self.level == "global":
            return Representation(torch.where(mask[..., None], z, 0.0).sum(1), x_0[:, 0, 0] % 4 != 1)
        known = mask & (torch.arange(mask.shape[1]) % 3 != 2)
        if self.level == "token":
            return Representation(z, known)
        pairs = torch.stack([z + shift for shift in range(NEIGHBOURS)], 2)
        return Representation(pairs, known[..., None] & (torch.arange(NEIGHBOURS) < 2))


def alone(encoder: Encoder, item: int) -> Representation:
    """The obvious reference: one item, encoded by itself."""
    batch = Chains().batch([item])
    return encoder(batch.x_0, None, batch.mask)


def build(folder: Path, level: str = "token", **options: Any) -> Cache:
    given = {"format": "float32", "shard_items": 4, "batch_items": 3, **options}
    return build_cache(folder, Waves(level), Chains(), **given)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("form", ["float16", "float32"])
@pytest.mark.parametrize("level", LEVELS)
def test_what_is_read_is_what_was_encoded(tmp_path: Path, level: str, form: str) -> None:
    cache = build(tmp_path, level, format=form)
    assert len(cache) == len(Chains())
    for item in range(len(cache)):
        expected = alone(Waves(level), item)
        z = expected.z if expected.mask is None else torch.where(expected.mask[..., None], expected.z, 0.0)
        rows = z[0] if level == "global" else z[0, : Chains().length(item)]
        assert cache[item].dtype == getattr(torch, form)
        torch.testing.assert_close(cache[item], rows.to(cache[item].dtype), rtol=0, atol=0)


@pytest.mark.parametrize("level", LEVELS)
def test_gather_pads_and_masks(tmp_path: Path, level: str) -> None:
    cache, items = build(tmp_path, level), [9, 2, 2, 5]
    found = cache.gather(items, length=None if level == "global" else 8)
    assert found.z.shape[1:] == {"token": (8, DIM), "pair": (8, NEIGHBOURS, DIM), "global": (DIM,)}[level]
    for place, item in enumerate(items):
        expected, rows = alone(Waves(level), item), len(cache.item(item).values)
        if level == "global":
            assert found.mask is not None
            assert found.mask.tolist() == [item % 4 != 1 for item in items]
            torch.testing.assert_close(found.z[place], expected.z[0] * found.mask[place])
        else:
            assert found.mask is not None
            assert expected.mask is not None
            assert torch.equal(found.mask[place, :rows], expected.mask[0, :rows])
            torch.testing.assert_close(found.z[place][found.mask[place]], expected.z[expected.mask])
            assert not found.mask[place, rows:].any()
            assert not found.z[place, rows:].any()
    if level != "global":
        longest = max(len(cache[item]) for item in items)
        assert cache.gather(items).z.shape[1] == longest
        with pytest.raises(InputError, match=f"{longest} rows"):
            cache.gather(items, length=longest - 1)


def test_gathered_values_are_the_z_of_an_objective(tmp_path: Path) -> None:
    class Denoiser(nn.Sequential):
        def forward(self, x_t: Tensor, t: Tensor, c: Any = None) -> Tensor:
            return super().forward(x_t)

    torch.manual_seed(0)
    cache, items = build(tmp_path, format="float16"), [0, 5, 7]
    net = Denoiser(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    objective = presets.repa(Interpolant(), Latent("waves", tap="1", tap_dim=8, dim=DIM))
    batch = Chains().batch(items)
    assert batch.mask is not None
    x_0 = torch.where(batch.mask[..., None], batch.x_0, 0.0)
    direct = Waves()(batch.x_0, None, batch.mask)
    losses = [
        objective(net, x_0, NoiseSource(0, items), z={"waves": z}, mask=batch.mask).alignment["waves"]
        for z in (cache.gather(items, x_0.shape[1]), direct, Shuffled(cache, 0).gather(items, x_0.shape[1]))
    ]
    assert losses[0].isfinite().all()
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-2, atol=1e-3)
    assert (losses[0] - losses[2]).abs().max() > 0.01


def test_an_interrupted_build_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(tmp_path / "whole")
    calls = 0

    class Dies(Waves):
        def __call__(self, x_0: Tensor, c: Any = None, mask: Tensor | None = None) -> Representation:
            nonlocal calls
            calls += 1
            if calls == 4:  # in the middle of the second shard
                raise KeyboardInterrupt
            return super().__call__(x_0, c, mask)

    options: dict[str, Any] = {"format": "float32", "shard_items": 4, "batch_items": 3}
    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path / "cut", Dies(), Chains(), **options)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["000000.safetensors"]
    with pytest.raises(InputError, match="no cache"):
        open_cache(tmp_path / "cut", encoder="waves-1", data="chains-1")
    first = (tmp_path / "cut" / "000000.safetensors").stat()
    build_cache(tmp_path / "cut", Waves(), Chains(), **options)
    again = (tmp_path / "cut" / "000000.safetensors").stat()
    assert (first.st_ino, first.st_mtime_ns) == (again.st_ino, again.st_mtime_ns)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_shards_are_independent_of_order_and_writer(tmp_path: Path) -> None:
    build(tmp_path / "one")
    for index in (2, 0, 1):
        builder = CacheBuilder(tmp_path / "many", Waves(), Chains(), format="float32", shard_items=4, batch_items=3)
        with pytest.raises(InputError, match="lacks"):
            builder.seal()
        builder.write(index)
    builder.seal()
    assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_a_shard_cut_short_is_written_again(tmp_path: Path) -> None:
    build(tmp_path)
    before = contents(tmp_path)
    for name, size in (("000001.safetensors", 200), ("000002.safetensors", 0)):
        with (tmp_path / name).open("r+b") as stream:
            stream.truncate(size)
    build(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("encoder", "data", "named"),
    [("other", "chains-1", "encoder"), ("waves-1", "other", "data"), ("x", "y", "encoder .* data")],
)
def test_a_foreign_or_stale_cache_is_refused_by_name(tmp_path: Path, encoder: str, data: str, named: str) -> None:
    build(tmp_path)
    assert len(open_cache(tmp_path, encoder="waves-1", data="chains-1")) == 11
    with pytest.raises(InputError, match=named) as raised:
        open_cache(tmp_path, encoder=encoder, data=data)
    assert ("encoder" in str(raised.value)) == (encoder != "waves-1")
    assert ("the data" in str(raised.value)) == (data != "chains-1")


def test_caches_do_not_mix_in_one_folder(tmp_path: Path) -> None:
    build(tmp_path)
    before = contents(tmp_path)
    others: list[tuple[Any, Any, dict[str, Any], str]] = [
        (replace(Waves(), fingerprint="waves-2"), Chains(), {}, "encoder"),
        (Waves(), replace(Chains(), fingerprint="chains-2"), {}, "data"),
        (Waves(), Chains(), {"format": "float16"}, "format"),
        (Waves(), Chains(), {"format": "pca-2"}, "format"),
        (Waves(), Chains(), {"shard_items": 5}, "shard_items"),
        (Waves("global"), Chains(), {}, "level"),
    ]
    for encoder, data, options, named in others:
        given: dict[str, Any] = {"format": "float32", "shard_items": 4, "batch_items": 3, **options}
        with pytest.raises(InputError, match=named):
            build_cache(tmp_path, encoder, data, **given)
    assert contents(tmp_path) == before


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    build(tmp_path)
    path = tmp_path / "000001.safetensors"
    whole = path.read_bytes()

    def opened() -> Cache:
        return open_cache(tmp_path, encoder="waves-1", data="chains-1")

    opened().verify()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=path.name):
        opened()
    path.unlink()
    with pytest.raises(InputError, match=f"{path.name} is missing"):
        opened()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=path.name):
        opened().verify()
    for broken in (b"\xff" * 8 + whole[8:], whole[:20] + b"}" * 60 + whole[80:], bytes(len(whole))):
        path.write_bytes(broken)
        assert len(opened()[0]) == Chains().length(0)
        with pytest.raises(InputError, match=path.name):
            opened()[5]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"content": {}, "shards": []}'])
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_cache(tmp_path, encoder="", data="")


def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    build(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["content"]["layout"] += 1
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="layout"):
        open_cache(tmp_path, encoder="waves-1", data="chains-1")


def test_values_are_views_of_the_file(tmp_path: Path) -> None:
    cache = build(tmp_path)
    before = contents(tmp_path)
    assert cache[1].data_ptr() == cache.item(1).values.data_ptr()
    assert cache[1].data_ptr() - cache[0].data_ptr() == cache[0].numel() * 4
    cache[1].zero_()
    assert contents(tmp_path) == before
    with pytest.raises(IndexError):
        cache[len(cache)]
    assert sum(1 for _ in cache) == len(cache)  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's account of a mapping is read")
def test_one_item_of_a_large_shard_does_not_read_the_shard(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Wide(Waves):
        level: Any = "global"
        dim: int = 16384

        def __call__(self, x_0: Tensor, c: Any = None, mask: Tensor | None = None) -> Representation:
            return Representation(x_0[:, 0, :1].expand(-1, self.dim))

    cache = build_cache(tmp_path, Wide(), Chains(600), format="float32", shard_items=600)
    size = cache.manifest.shards[0].bytes
    assert size > 32 * 2**20

    def resident() -> int:
        lines = Path("/proc/self/smaps").read_text().splitlines()
        starts = [place for place, line in enumerate(lines) if line.endswith("000000.safetensors")]
        sizes = [next(line for line in lines[place:] if line.startswith("Rss:")) for place in starts]
        assert sizes
        return sum(int(line.split()[1]) * 1024 for line in sizes)

    assert cache[300].mean() == 300
    assert resident() < size / 16
    assert sum(float(cache[item].sum()) for item in range(600)) > 0
    assert resident() > size / 2  # the account does see what is read


def test_a_cache_goes_to_other_processes_without_its_values(tmp_path: Path) -> None:
    cache = build(tmp_path)
    copies = pickle.dumps(cache)
    assert cache[0].any()
    assert len(pickle.dumps(cache)) == len(copies)
    assert torch.equal(pickle.loads(copies)[3], cache[3])


def test_files_are_plain_safetensors_with_hashes_in_the_manifest(tmp_path: Path) -> None:
    cache = build(tmp_path)
    assert cache.manifest.content.dim == DIM
    assert [(shard.first, shard.last) for shard in cache.manifest.shards] == [(0, 4), (4, 8), (8, 11)]
    for shard in cache.manifest.shards:
        assert files.sha256(tmp_path / shard.file) == shard.sha256
        with safe_open(tmp_path / shard.file, "pt") as stream:
            lengths = stream.get_tensor("offsets").diff().tolist()
            assert lengths == [Chains().length(item) for item in range(shard.first, shard.last)]
            assert stream.get_tensor("values").shape == (shard.rows, DIM)


@pytest.mark.parametrize("level", LEVELS)
def test_shuffled_gives_every_item_the_values_of_another(tmp_path: Path, level: str) -> None:
    cache = build(tmp_path, level)
    shuffled = Shuffled(cache, seed=3)
    assert sorted(shuffled.other.tolist()) == list(range(len(cache)))
    assert not (shuffled.other == torch.arange(len(cache))).any()
    assert torch.equal(shuffled.other, Shuffled(cache, seed=3).other)
    for item in range(len(cache)):
        own, other = cache.item(item), cache.item(int(shuffled.other[item]))
        found = shuffled.gather([item])
        rows = found.z if level == "global" else found.z[0]
        assert len(rows) == len(own.values)
        for place, row in enumerate(rows):
            assert torch.equal(row, other.values[place % len(other.values)])


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="item 1 that float16"):
        build_cache(tmp_path / "a", Waves(scale=1e6), Chains())
    assert torch.isfinite(build_cache(tmp_path / "b", Waves(scale=1e6), Chains(), format="float32")[0]).all()
    with pytest.raises(InputError, match="at least one item"):
        build_cache(tmp_path / "c", Waves(), Chains(0))
    with pytest.raises(InputError, match="width 4"):
        build_cache(tmp_path / "d", Waves(dim=4), Chains())
    assert not (tmp_path / "a" / "manifest.json").exists()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, DIM), nn.Dropout(0.5), nn.BatchNorm1d(7, track_running_stats=True), nn.Tanh())


def test_a_fingerprint_follows_what_values_depend_on() -> None:
    found = fingerprint_module(network())
    assert found == fingerprint_module(network()) == fingerprint_module(network().eval())
    reordered = network()
    reordered._modules = dict(reversed(reordered._modules.items()))
    assert fingerprint_module(reordered) == found
    assert fingerprint_module(network(), "resized to 224") != found
    assert fingerprint_module(network().bfloat16()) != found
    for name in network().state_dict():
        changed = network()
        changed.state_dict()[name].view(-1)[0] += 1
        assert fingerprint_module(changed) != found, name


def test_a_module_encoder_is_frozen_and_reads_its_tap() -> None:
    module, x_0 = network(), torch.randn(4, 7, 2)
    encoder = ModuleEncoder("net", module, DIM)
    tapped = ModuleEncoder("net", module, DIM, tap="0")
    found = encoder(x_0)
    assert torch.equal(found.z, encoder(x_0).z)  # no dropout
    assert not found.z.requires_grad
    assert not any(parameter.requires_grad for parameter in module.parameters())
    torch.testing.assert_close(tapped(x_0).z, module[0](x_0))
    torch.testing.assert_close(found.z, module(x_0))
    newer = ModuleEncoder("net", module, DIM, version="2")
    assert len({encoder.fingerprint, tapped.fingerprint, newer.fingerprint}) == 3
    before = encoder.fingerprint
    with torch.no_grad():
        module[0].bias += 1
    assert encoder.fingerprint != before


def test_a_module_encoder_pools_over_existing_elements_and_checks_widths() -> None:
    module, x_0 = network(), torch.randn(3, 7, 2)
    mask = torch.arange(7) < torch.tensor([7, 3, 1])[:, None]
    z = ModuleEncoder("net", module, DIM, "global", tap="0")(x_0, None, mask).z
    for row, kept, pooled in zip(x_0, mask, z, strict=True):
        torch.testing.assert_close(module[0](row[kept]).mean(0), pooled)
    assert ModuleEncoder("net", module, DIM)(x_0, None, mask).mask is mask
    doubled = ModuleEncoder("net", module, DIM, tap="0", inputs=lambda x_0, c, mask: (x_0 * c,))
    torch.testing.assert_close(doubled(x_0, 2.0).z, module[0](2 * x_0))
    with pytest.raises(InputError, match="width 9"):
        ModuleEncoder("net", module, 9)(x_0)

"""The formats of a cache: what each loses, what a gather makes of them, and builds that are shared or killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import CacheBuilder, ModuleEncoder, Shuffled, build_cache, named, open_cache
from reed_core.representation.basis import fit_basis
from reed_core.representation.format import Packed, pack, row_bytes, unpack
from reed_core.representation.identity import differences, parts_of
from reed_core.representation.pool import Pool
from reed_core.train.data import Batch
from torch import Tensor, nn

LEVELS = ("token", "pair", "global")
FORMATS = ("float32", "float16", "int8", "pca-6")
DIM, EDGES = 12, 3


@dataclass(frozen=True)
class Items:
    """Ragged items of random values; the number of an item is its seed."""

    count: int = 23
    fingerprint: str = "items-1"
    equal: bool = False

    def __len__(self) -> int:
        return self.count

    def length(self, item: int) -> int:
        return 5 if self.equal else 1 + (item * 5) % 7

    def batch(self, items: Sequence[int]) -> Batch:
        lengths = [self.length(item) for item in items]
        x_0 = torch.full((len(items), max(lengths) + 1, DIM), torch.nan)
        mask = torch.zeros(x_0.shape[:2], dtype=torch.bool)
        for place, item in enumerate(items):
            generator = torch.Generator().manual_seed(item)
            x_0[place, : lengths[place]] = torch.randn(lengths[place], DIM, generator=generator)
            mask[place, : lengths[place]] = True
        return Batch(x_0, mask=mask)


@dataclass(frozen=True)
class Noise:
    """z is x_0 with falling spread per coordinate and an offset; every fourth element is unknown."""

    level: Any = "token"
    name: str = "noise"
    dim: int = DIM
    fingerprint: str = "weights=aa preprocessing=none"

    def __call__(self, x_0: Tensor, c: Any = None, mask: Tensor | None = None) -> Representation:
        z = x_0 * torch.logspace(1, -2, DIM) + 3.0
        assert mask is not None
        if self.level == "global":
            return Representation(z[:, 0], x_0[:, 0, 0] < 1)
        known = mask & (torch.arange(mask.shape[1]) % 4 != 3)
        if self.level == "token":
            return Representation(z, known)
        return Representation(
            torch.stack([z * (1 + edge) for edge in range(EDGES)], 2), known[..., None] & (torch.arange(EDGES) < 2)
        )


def exact(level: str, item: int) -> Representation:
    batch = Items().batch([item])
    found = Noise(level)(batch.x_0, None, batch.mask)
    assert found.mask is not None
    return Representation(torch.where(found.mask[..., None], found.z, 0.0), found.mask)


def build(folder: Path, level: str = "token", form: str = "float32", **options: Any) -> Any:
    return build_cache(folder, Noise(level), Items(), format=form, **{"shard_items": 9, "batch_items": 4, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("direct", [True, False])
def test_a_gather_is_each_item_decoded_and_padded(
    tmp_path: Path, level: str, form: str, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the rows of each item, one by one; over runs, shard borders, repeats and steps backwards."""
    if direct:
        monkeypatch.setattr("reed_core.representation.gather._SHORT", 1)
        monkeypatch.setattr("reed_core.representation.gather._VECTORS", 2)
    else:
        monkeypatch.delattr(os, "preadv")
    cache = build(tmp_path, level, form)
    for items in ([3, 4, 5, 6, 7, 8, 9, 10, 2, 2, 1, 22], [0], list(range(23)), [22, 0, 11]):
        found = cache.gather(items, None if level == "global" else 9)
        assert found.mask is not None
        assert found.z.dtype == (torch.float16 if form == "float16" else torch.float32)
        for place, item in enumerate(items):
            stored = cache.item(item)
            rows = unpack(form, Packed(stored.values, stored.scale), cache._basis)
            rows = torch.where(stored.known[..., None], rows, 0.0)
            z, known = found.z[place], found.mask[place]
            if level == "global":
                z, known = z[None], known[None]
            torch.testing.assert_close(z[: len(rows)], rows, rtol=0, atol=1e-4 if form == "pca-6" else 0)
            assert torch.equal(known[: len(rows)], stored.known)
            assert torch.equal(stored.known, exact(level, item).mask.reshape(-1, *known.shape[1:])[: len(rows)])  # type: ignore[union-attr]
            assert not z[len(rows) :].any()
            assert not known[len(rows) :].any()
            torch.testing.assert_close(cache[item], rows[0] if level == "global" else rows, rtol=0, atol=1e-4)


def test_memory_is_used_again_only_when_nobody_holds_it() -> None:
    pool = Pool()
    first = pool.take((3, 1 << 19), np.float32)
    address = first.ctypes.data
    first[:] = 1
    held = torch.from_numpy(first)[1]
    del first
    others = [pool.take((3, 1 << 19), np.float32) for _ in range(9)]
    for number, other in enumerate(others):
        other[:] = number
    assert address not in {other.ctypes.data for other in others}
    assert held.eq(1).all()
    assert all((other == number).all() for number, other in enumerate(others))
    del held, other
    again = pool.take((2, 1 << 19), np.float32)
    assert again.ctypes.data == address
    assert pool.take((4, 2), np.int8).shape == (4, 2)


@pytest.mark.parametrize("form", FORMATS)
def test_batches_that_are_kept_do_not_change(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reed_core.representation.pool._LEAST", 1)
    cache = build(tmp_path, form=form)
    kept = [cache.gather([item, item + 1], 8) for item in range(20)]
    copies = [found.z.clone() for found in kept]
    for item in range(20):
        cache.gather([22 - item, 0], 8)
    assert all(torch.equal(found.z, copy) for found, copy in zip(kept, copies, strict=True))
    for item, found in enumerate(kept):
        torch.testing.assert_close(found.z, cache.gather([item, item + 1], 8).z, rtol=0, atol=0)


def test_blocks_of_equal_items_cross_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reed_core.representation.gather._SHORT", 1)
    items = Items(equal=True)
    cache = build_cache(tmp_path, Noise(), items, format="float32", shard_items=9, batch_items=4)
    z = torch.cat([cache.gather(list(range(start, min(start + 6, 23)))).z for start in range(0, 23, 6)])
    batch = items.batch(range(23))
    expected = Noise()(batch.x_0, None, batch.mask)
    assert expected.mask is not None
    assert torch.equal(z, torch.where(expected.mask[..., None], expected.z, 0.0)[:, :5])


def test_int8_is_off_by_half_a_step_at_most_whatever_the_size_of_a_row() -> None:
    torch.manual_seed(0)
    z = torch.randn(50, 33) * torch.logspace(-20, 20, 50)[:, None]
    z[7] = 0
    packed = pack("int8", z, None)
    assert packed.scale is not None
    error = (unpack("int8", packed, None) - z).abs()
    assert (error <= packed.scale[:, None] * 0.5001).all()
    assert not error[7].any()
    assert packed.values.abs().amax(1)[z.any(1)].eq(127).all()


def test_a_basis_is_orthonormal_and_loses_the_least() -> None:
    torch.manual_seed(0)
    rows = torch.randn(400, 10, dtype=torch.float64) @ torch.randn(10, 10, dtype=torch.float64) + 5
    basis = fit_basis(rows.split(37), 10, 4)
    torch.testing.assert_close(basis.components @ basis.components.T, torch.eye(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(basis.mean.double(), rows.mean(0))

    def lost(components: Tensor) -> float:
        centred = rows - rows.mean(0)
        return float((centred - centred @ components.T.double() @ components.double()).square().sum())

    singular = torch.linalg.svdvals(rows - rows.mean(0))
    assert lost(basis.components) == pytest.approx(float(singular[4:].square().sum()), rel=1e-5)
    with pytest.raises(InputError, match="4 rows"):
        fit_basis([torch.randn(4, 10)], 10, 4)


@pytest.mark.parametrize("level", LEVELS)
def test_fidelity_is_that_of_what_is_read(tmp_path: Path, level: str) -> None:
    """Against every row, encoded again; and more room is more faithful."""
    found = {}
    for form in ("float32", "float16", "int8", "pca-11", "pca-3"):
        cache = build(tmp_path / form, level, form)
        z, again = [], []
        for item in range(len(cache)):
            expected, rows = exact(level, item), len(cache.item(item).values)
            assert expected.mask is not None
            known = expected.mask[0] if level == "global" else expected.mask[0, :rows]
            z.append((expected.z[0] if level == "global" else expected.z[0, :rows])[known].view(-1, DIM))
            again.append(cache[item][known].view(-1, DIM))
        whole, read = torch.cat(z).double(), torch.cat(again).double()
        cosine = torch.cosine_similarity(whole, read)
        figures = found[form] = cache.manifest.fidelity
        assert figures.rows == len(whole)
        assert figures.cosine == pytest.approx(float(cosine.mean()), abs=1e-9)
        assert figures.worst_cosine == pytest.approx(float(cosine.min()), abs=1e-9)
        assert figures.relative_error == pytest.approx(float((whole - read).norm() / whole.norm()), rel=1e-6, abs=1e-9)
    errors = [found[form].relative_error for form in ("float32", "float16", "int8")]
    assert errors[0] == 0
    assert errors == sorted(errors)
    assert errors[2] < 0.01
    assert found["pca-11"].relative_error < found["pca-3"].relative_error
    assert found["float32"].worst_cosine == pytest.approx(1.0)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_size_is_known_before(tmp_path: Path, level: str, form: str) -> None:
    cache = build_cache(tmp_path, Noise(level), Items(400), format=form, shard_items=400)
    rows = cache.manifest.shards[0].rows * (EDGES if level == "pair" else 1)
    assert cache.bytes == pytest.approx(rows * row_bytes(form, DIM) + 8 * 400, abs=1500)  # its header


@pytest.mark.parametrize("form", ["float8", "pca", "pca-0", "pca--1", "pca-13", ""])
def test_a_format_that_does_not_exist_is_refused(tmp_path: Path, form: str) -> None:
    with pytest.raises(InputError, match="choose"):
        build(tmp_path, form=form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("level", LEVELS)
def test_the_shuffled_control_reads_every_format(tmp_path: Path, level: str) -> None:
    cache = build(tmp_path, level, "int8")
    shuffled = Shuffled(cache, 2)
    items = [4, 0, 17]
    found = shuffled.gather(items, None if level == "global" else 8)
    for place, item in enumerate(items):
        other = cache[int(shuffled.other[item])]
        if level == "global":
            assert torch.equal(found.z[place], other)
            continue
        own = Items().length(item)
        assert torch.equal(found.z[place, :own], other[torch.arange(own) % len(other)])
        assert not found.z[place, own:].any()
    if level != "global":
        with pytest.raises(InputError, match="pad to more"):
            shuffled.gather([1, 4], 5)


@pytest.mark.parametrize("form", ["int8", "pca-6"])
def test_workers_in_any_order_write_the_same_bytes_and_seal_as_often_as_they_like(tmp_path: Path, form: str) -> None:
    build(tmp_path / "one", form=form)
    for index in (2, 0, 1):
        builder = CacheBuilder(tmp_path / "many", Noise(), Items(), format=form, shard_items=9, batch_items=4)
        assert index in builder.missing
        builder.write(index)
    assert not builder.missing
    for _ in range(2):
        CacheBuilder(tmp_path / "many", Noise(), Items(), format=form, shard_items=9, batch_items=4).seal()
        assert contents(tmp_path / "one") == contents(tmp_path / "many")


def test_the_first_basis_wins_and_shards_of_another_are_refused(tmp_path: Path) -> None:
    build(tmp_path / "a", form="pca-2")
    build_cache(
        tmp_path / "b", Noise(), Items(equal=True), format="pca-2", shard_items=9, batch_items=4
    )  # other data under the same name: another basis
    first = (tmp_path / "a" / "basis.safetensors").read_bytes()
    build(tmp_path / "a", form="pca-2")
    assert (tmp_path / "a" / "basis.safetensors").read_bytes() == first
    (tmp_path / "a" / "000001.safetensors").write_bytes((tmp_path / "b" / "000001.safetensors").read_bytes())
    with pytest.raises(InputError, match="basis differs"):
        build(tmp_path / "a", form="pca-2")


def test_a_lost_or_damaged_basis_is_named(tmp_path: Path) -> None:
    build(tmp_path, form="pca-2")
    path = tmp_path / "basis.safetensors"
    whole = path.read_bytes()
    for text in (whole[:-1], whole[:-1] + b"\0", None):
        path.unlink()
        if text is not None:
            path.write_bytes(text)
        with pytest.raises(InputError, match=r"basis\.safetensors is missing or damaged"):
            open_cache(tmp_path, encoder=Noise().fingerprint, data="items-1")
        if text is None:
            path.write_bytes(whole)


def test_what_cannot_be_held_is_refused(tmp_path: Path) -> None:
    class Infinite(Noise):
        def __call__(self, x_0: Tensor, c: Any = None, mask: Tensor | None = None) -> Representation:
            found = super().__call__(x_0, c, mask)
            return Representation(torch.where(found.z > 15, torch.inf, found.z), found.mask)

    for form in FORMATS:
        with pytest.raises(InputError, match="cannot hold"):
            build_cache(tmp_path / form, Infinite(), Items(), format=form)


def test_the_part_that_differs_is_named(tmp_path: Path) -> None:
    build(tmp_path)
    for fingerprint, reason in (
        ("weights=bb preprocessing=none", r"encoder \(weights\) differs \(there aa, here bb\)"),
        ("weights=aa preprocessing=crop", r"encoder \(preprocessing\) differs \(there none, here crop\)"),
        ("weights=aa", r"encoder \(preprocessing\) differs \(there none, here nothing\)"),
        ("another", "the encoder differs"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            open_cache(tmp_path, encoder=fingerprint, data="items-1")
        assert "data" not in str(caught.value)
        with pytest.raises(InputError, match=reason):
            build_cache(tmp_path, replace(Noise(), fingerprint=fingerprint), Items(), format="float32", shard_items=9)


def test_fingerprints_have_parts_and_hide_nothing() -> None:
    given = {"weights": "ab", "inputs": "two words", "version": ""}
    assert parts_of(named(given))["weights"] == "ab"
    assert list(parts_of(named(given))) == list(given)
    assert named(given) != named({**given, "inputs": "two  words"}) != named({**given, "version": "1"})
    assert parts_of("plain text") == {"": "plain text"}
    assert differences("x", named(given), named(given)) == []
    torch.manual_seed(0)
    module = nn.Linear(2, 2)
    one = ModuleEncoder("a", module, 2, version="1").fingerprint
    other = ModuleEncoder("a", module, 2, version="2").fingerprint
    assert differences("encoder", one, other) == ["the encoder (version) differs (there 1, here 2)"]


def test_the_address_of_a_cache_follows_its_content() -> None:
    def address(encoder: Noise = Noise(), items: Items = Items(), **options: Any) -> str:
        return CacheBuilder(Path("absent"), encoder, items, **options).content.address

    assert address() == address()
    changed = [
        address(Noise(fingerprint="weights=bb preprocessing=none")),
        address(Noise("pair")),
        address(items=Items(fingerprint="items-2")),
        address(format="int8"),
        address(format="pca-3"),
    ]
    assert len({address(), *changed}) == 6
    assert not Path("absent").exists()


WORKER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_representation_formats import Items, Noise
from reed_core.representation import build_cache

class Slow(Noise):
    def __call__(self, *given):
        time.sleep(0.02)
        return super().__call__(*given)

build_cache(sys.argv[2], Slow(), Items(), format=sys.argv[3], shard_items=3, batch_items=1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_build_completes_to_the_same_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    run = [sys.executable, "-c", WORKER, str(Path(__file__).parent), str(folder), "pca-6"]
    process = subprocess.Popen(run, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list(folder.glob("0*.safetensors"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = {path.name: path.stat().st_mtime_ns for path in folder.glob("0*.safetensors")}
    assert 3 <= len(written) < 8
    assert not (folder / "manifest.json").exists()
    left = folder / ".000007.aa.part.safetensors"  # of a worker that was killed long ago
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    for place in (folder, tmp_path / "whole"):
        build_cache(place, Noise(), Items(), format="pca-6", shard_items=3, batch_items=1)
    assert contents(folder) == contents(tmp_path / "whole")
    assert all((folder / name).stat().st_mtime_ns == stamp for name, stamp in written.items())
    assert not left.exists()


def test_the_manifest_says_what_a_reader_wants_to_know(tmp_path: Path) -> None:
    build(tmp_path, form="int8").verify()
    said = json.loads((tmp_path / "manifest.json").read_text())
    assert said["content"]["format"] == "int8"
    assert said["content"]["encoder_fingerprint"] == Noise().fingerprint
    assert said["fidelity"]["cosine"] > 0.999
    assert np.isclose(sum(shard["bytes"] for shard in said["shards"]), build(tmp_path, form="int8").bytes)


def test_the_bench_runs_and_reads_every_format() -> None:
    tool = Path(__file__).parents[2] / "tools" / "bench_cache.py"
    environment = {name: value for name, value in os.environ.items() if name != "REED_DATA"}
    done = subprocess.run(
        [sys.executable, str(tool), "--quick"], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for form in ("float32", "float16", "int8", "pca-64"):
        assert done.stdout.count(f"{form} ") == 4  # two shapes, warm and cold
    assert done.stdout.count("mean cosine") == 8

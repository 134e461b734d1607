"""A checkpoint comes back to the last bit or not at all, whatever became of its files."""

import errno
import json
import math
import os
import pickle
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from reed_core.errors import InputError
from reed_core.train import shard_file
from reed_core.train.checkpoint import load_latest, save_checkpoint
from reed_core.train.manifest import NAME
from reed_core.train.state_tree import flatten, rebuild
from safetensors.torch import load_file
from torch import Tensor, nn

TENSORS = {
    "matrix": torch.arange(12.0).view(3, 4),
    "transposed": torch.arange(12.0).view(3, 4).t(),
    "part of a larger one": torch.arange(100.0)[10:20:3],
    "one of a larger one": torch.arange(100.0)[10:11:3],
    "half": torch.tensor([1.5, -0.0, math.inf, math.nan], dtype=torch.bfloat16),
    "fp16": torch.linspace(0, 1, 7, dtype=torch.float16),
    "double": torch.tensor([math.pi, 5e-324], dtype=torch.float64),
    "number": torch.tensor(3.0),
    "count": torch.tensor(2**62),
    "flags": torch.tensor([[True], [False]]),
    "bytes": torch.arange(256).to(torch.uint8),
    "empty": torch.empty(0),
    "empty, with a shape": torch.empty(3, 0, 2, dtype=torch.int32),
    "parameter": nn.Parameter(torch.randn(2, 2)),
    "slash/and~tilde.and.dot": torch.ones(1),
}
VALUES = {
    "numbers": [1, -(2**70), 0.1, -0.0, 5e-324, math.inf, True, None],
    "text": "één\n\x00\ud83d",
    "pair": (0.9, 0.99),
    "nested": {"list": [{"a": (1,), "b": []}, {}], 3: "three", "3": "text three"},
}


def state() -> dict[str, Any]:
    optimizer = {
        "state": {"layer.weight": {"step": torch.tensor(4.0), "exp_avg": torch.rand(2, 3)}},
        "groups": [VALUES],
    }
    return {"model": dict(TENSORS), "optimizer": optimizer, "several": [torch.rand(2), (torch.rand(1), 7)], **VALUES}


def blank(value: Any) -> Any:
    """The same tensors by name, type and shape; nothing of their content, and other values."""
    flat = flatten(value)
    return rebuild(flat.outline, {name: torch.full_like(one, 1) for name, one in flat.tensors.items()}) | {"text": "?"}


def assert_identical(one: Any, other: Any) -> None:
    assert type(one) is type(other) or (isinstance(one, Tensor) and isinstance(other, Tensor))
    if isinstance(one, Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(torch.signbit(one), torch.signbit(other))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_identical(one[key], other[key])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_identical(left, right)
    else:
        assert repr(one) == repr(other)


def loaded(folder: Path, like: dict[str, Any]) -> dict[str, Any]:
    found = load_latest(folder, blank(like))
    assert found is not None
    return found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Whole


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    saved = state()
    path = save_checkpoint(tmp_path, 76, saved)
    assert path == tmp_path / "000000000076"
    assert_identical(loaded(tmp_path, saved), saved)


def test_the_tensors_given_are_those_filled(tmp_path: Path) -> None:
    """A network's own parameters, which an optimiser holds."""
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    save_checkpoint(tmp_path, 1, {"model": one.state_dict(), "seed": 3})
    found = load_latest(tmp_path, {"model": other.state_dict(), "seed": 0})
    assert torch.equal(one.weight, other.weight)
    assert found is not None
    assert found["seed"] == 3
    assert found["model"]["weight"].data_ptr() == other.weight.data_ptr()


def test_tensors_larger_than_a_block_and_many_small_ones(tmp_path: Path) -> None:
    saved: dict[str, Any] = {str(number): torch.rand(number % 7) for number in range(300)}
    saved["large"] = torch.rand(2 * shard_file.BLOCK // 4 + 3)
    saved["after"] = torch.rand(3)
    save_checkpoint(tmp_path, 1, saved)
    assert_identical(loaded(tmp_path, saved), saved)


def test_any_reader_of_safetensors_can_open_one(tmp_path: Path) -> None:
    saved = state()
    path = save_checkpoint(tmp_path, 1, saved)
    read = load_file(path / "0.safetensors")
    assert_identical({name: read[name] for name in flatten(saved).tensors}, dict(flatten(saved).tensors))


def test_nothing_is_pickled_and_nothing_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: Any, **kwargs: Any) -> Any:
        pytest.fail("a checkpoint was pickled")

    for module in (pickle, torch):
        for name in ("load", "loads", "dump", "dumps", "save"):
            monkeypatch.setattr(module, name, forbidden, raising=False)
    save_checkpoint(tmp_path, 1, {"weight": torch.ones(2), "n": 1})
    assert load_latest(tmp_path, {"weight": torch.zeros(2)}) is not None


def test_a_folder_without_checkpoints_is_a_new_run(tmp_path: Path) -> None:
    assert load_latest(tmp_path, {}) is None
    assert load_latest(tmp_path / "absent", {}) is None


def test_only_the_last_two_are_kept(tmp_path: Path) -> None:
    for samples in (5, 90, 100, 1_000_000):
        save_checkpoint(tmp_path, samples, {"samples": samples})
    assert names(tmp_path) == ["000000000100", "000001000000"]
    assert load_latest(tmp_path, {}) == {"samples": 1_000_000}


def test_a_run_that_went_back_leaves_nothing_later_than_itself(tmp_path: Path) -> None:
    """The later one was damaged: were it counted, the next save would throw the whole ones away."""
    for samples in (10, 20, 30):
        save_checkpoint(tmp_path, samples, {"samples": samples})
    (tmp_path / "000000000030" / NAME).write_text("junk")
    assert load_latest(tmp_path, {}) == {"samples": 20}
    save_checkpoint(tmp_path, 25, {"samples": 25})
    assert names(tmp_path) == ["000000000020", "000000000025"]


def test_one_of_the_same_number_is_replaced(tmp_path: Path) -> None:
    for value in (1, 2):
        save_checkpoint(tmp_path, 7, {"value": value})
    assert load_latest(tmp_path, {}) == {"value": 2}
    assert names(tmp_path) == ["000000000007"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"a": {"b": Path("x")}}, "a/b of the state is a .*Path; expected tensors, numbers and strings"),
        ({"a": {1.5: 1}}, "a key of the state is a float"),
        ({"a": torch.zeros(1, dtype=torch.complex128)}, "cannot hold tensors of type torch.complex128"),
    ],
    ids=["object", "key", "type"],
)
def test_what_cannot_be_kept_is_refused_and_leaves_nothing(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        save_checkpoint(tmp_path, 1, wrong)
    assert names(tmp_path) == []


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tensors of the state are named a/1"):
        flatten({"a": {1: torch.ones(1), "1": torch.ones(1)}})


# Damage

Damage = Callable[[Path], object]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1 if path.suffix != ".json" else data.index(b"1")] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Damage] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "flipped": flip,
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\x01"),
    "junk": lambda path: path.write_bytes(b"\xff\xfejunk" * 99),
    "not ours": lambda path: path.write_text('{"sha256": [], "content": 3}'),
    "absent": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def two(folder: Path) -> None:
    for value in (10, 20):
        save_checkpoint(folder, value, {"weight": torch.full((4,), float(value)), "value": value})


def weights() -> dict[str, Any]:
    return {"weight": torch.zeros(4)}


@pytest.mark.parametrize("file", ["0.safetensors", NAME])
@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    two(tmp_path)
    DAMAGES[damage](tmp_path / "000000000020" / file)
    assert_identical(load_latest(tmp_path, weights()), {"weight": torch.full((4,), 10.0), "value": 10})
    DAMAGES[damage](tmp_path / "000000000010" / file)
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read .*remove the folder") as raised:
        load_latest(tmp_path, weights())
    assert "\n" not in str(raised.value)


def test_no_flipped_bit_is_ever_taken_for_a_weight(tmp_path: Path) -> None:
    """Anywhere in any file: the checkpoint is whole to the bit, or the one before is read."""
    two(tmp_path)
    saved, rng = load_latest(tmp_path, weights()), random.Random(0)
    files = sorted((tmp_path / "000000000020").iterdir())
    assert len(files) == 2
    went_back = 0
    for _ in range(60):
        path = rng.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        found = load_latest(tmp_path, weights())
        assert found is not None
        went_back += found["value"] == 10
        if found["value"] != 10:
            assert_identical(found, saved)
        path.write_bytes(whole)
    assert went_back > 50


def test_a_manifest_of_another_program_reads_no_other_file(tmp_path: Path) -> None:
    """A seal is no signature: a path that leaves the folder is refused however well it is sealed."""
    import hashlib

    two(tmp_path)
    path = tmp_path / "000000000020" / NAME
    content = json.loads(path.read_text())["content"]
    content["tensors"]["weight"]["pieces"][0]["file"] = "../000000000010/0.safetensors"
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "content": content}))
    found = load_latest(tmp_path, weights())
    assert found is not None
    assert found["value"] == 10


def test_a_later_format_is_not_passed_over(tmp_path: Path) -> None:
    import hashlib

    two(tmp_path)
    path = tmp_path / "000000000020" / NAME
    content = json.loads(path.read_text())["content"] | {"format": 99}
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "content": content}))
    with pytest.raises(InputError, match="is a checkpoint of format 99, this version reads format 1; use"):
        load_latest(tmp_path, weights())


def test_checkpoints_of_an_earlier_format_are_refused(tmp_path: Path) -> None:
    torch.save({"seed": 3}, tmp_path / "000000000060.pt")
    with pytest.raises(InputError, match=r"earlier format \(000000000060.pt\).*another folder"):
        load_latest(tmp_path, {})


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    two(tmp_path)
    for left in (".000000000030.0123456789ab.part", ".000000000010.old.part", ".000000000020.replaced.part"):
        (tmp_path / left).mkdir()
        (tmp_path / left / "0.safetensors").write_bytes(b"part")
    (tmp_path / ".notes").write_text("mine")
    assert load_latest(tmp_path, weights()) is not None
    assert names(tmp_path) == [".notes", "000000000010", "000000000020"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, "weight is only in the checkpoint"),
        ({"weight": torch.zeros(4), "bias": torch.zeros(1)}, "bias is only in the model"),
        ({"weight": torch.zeros(2, 2)}, r"weight is F32 \[4\] in the checkpoint, F32 \[2, 2\] in the model"),
        ({"weight": torch.zeros(4).half()}, r"weight is F32 \[4\] in the checkpoint, F16 \[4\] in the model"),
    ],
    ids=["fewer", "more", "shape", "type"],
)
def test_a_checkpoint_of_another_model_changes_nothing(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    two(tmp_path)
    with pytest.raises(InputError, match=f"holds a run of another model .{said}.; use another folder"):
        load_latest(tmp_path, other)
    assert all(not tensor.any() for tensor in other.values())


# No space


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """A real limit on the size of a file: writers stop part-way, as on a full disk."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
@pytest.mark.parametrize("size", [0, 20, 10_000, 400_100])
@pytest.mark.parametrize("samples", [20, 30])
def test_a_full_disk_loses_only_the_running_save(tmp_path: Path, size: int, samples: int) -> None:
    """At every stage: the first byte, the header, the tensors, the manifest (longer than the tensors here)."""
    two(tmp_path)
    held = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    large = {"weight": torch.zeros(100_000), "text": "x" * 500_000}
    with disk_of(size), pytest.raises(InputError, match=f"cannot write .*0000{samples}: .*; free some space") as raised:
        save_checkpoint(tmp_path, samples, large)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == held
    save_checkpoint(tmp_path, samples, large)
    assert load_latest(tmp_path, {"weight": torch.ones(100_000)}) is not None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_only_when_it_is_asked_to_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Delayed allocation: the writes succeed, and the system says so at the flush."""
    two(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=f"cannot write .*000030: {os.strerror(number)}; .*choose another place"):
        save_checkpoint(tmp_path, 30, {"weight": torch.zeros(3)})
    assert names(tmp_path) == ["000000000010", "000000000020"]


def test_an_interrupt_is_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 30, {"weight": torch.zeros(3)})
    assert names(tmp_path) == []

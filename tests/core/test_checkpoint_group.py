"""Checkpoints of a process group: any number of processes writes, any number reads, and an error of one is of all.

Run as a program, this file is one of the processes: `test_checkpoint_group.py FOLDER RANK WORLD`.
"""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from reed_core.errors import InputError
from reed_core.train import parallel
from reed_core.train.checkpoint import load_latest, save_checkpoint
from reed_core.train.manifest import NAME, read_manifest
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

SHAPES = {"even": (4, 3), "uneven": (5, 2), "one row": (1, 4), "column": (2, 6), "vector": (7,)}


def full() -> dict[str, Tensor]:
    """What the shards are shards of."""
    generator = torch.Generator().manual_seed(3)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    tensors["half"] = torch.randn(6, 2, generator=generator).bfloat16()
    tensors["empty"] = torch.empty(0, 3)
    return tensors


def state(spread: Callable[[Tensor, int], Tensor]) -> dict[str, Any]:
    """Shards along the first axis, one along the second, copies on every process, and values."""
    shards = {name: spread(tensor, 1 if name == "column" else 0) for name, tensor in full().items()}
    return {"shards": shards, "copies": [full()["even"], torch.tensor(2.0)], "seed": 3}


def whole(tensor: Tensor, axis: int) -> Tensor:
    return tensor.clone()


def zeroed(made: dict[str, Any]) -> dict[str, Any]:
    for tensor in [*made["shards"].values(), *made["copies"]]:
        tensor.zero_()
    return made | {"seed": 0}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["seed"] == other["seed"]
    left, right = [*one["shards"].values(), *one["copies"]], [*other["shards"].values(), *other["copies"]]
    for mine, theirs in zip(left, right, strict=True):
        assert torch.equal(mine.full_tensor() if hasattr(mine, "full_tensor") else mine, theirs)


def process(folder: Path, rank: int, world: int) -> None:
    """All that the processes do together; an assertion that fails on one ends it."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    mesh = init_device_mesh("cpu", (world,))

    def sharded(tensor: Tensor, axis: int) -> Tensor:
        return distribute_tensor(tensor, mesh, [Shard(axis)])

    def copied(tensor: Tensor, axis: int) -> Tensor:
        return distribute_tensor(tensor, mesh, [Replicate()])

    plain = state(whole)
    for samples in (10, 20):
        save_checkpoint(folder / "by two", samples, state(sharded))
    for spread in (sharded, copied, whole):
        assert_same(load_latest(folder / "by two", zeroed(state(spread))) or {}, plain)
        assert_same(load_latest(folder / "by one", zeroed(state(spread))) or {}, plain)

    # Damage to a file that only the second process checks.
    shutil.copytree(folder / "by two", folder / "damaged", dirs_exist_ok=True)
    dist.barrier()
    if rank == 0:
        path = folder / "damaged" / "000000000020" / "1.safetensors"
        os.truncate(path, path.stat().st_size - 1)
    dist.barrier()
    found = load_latest(folder / "damaged", zeroed(state(sharded)))
    assert_same(found or {}, plain)

    # An error of the second process alone, of the first alone.
    for number in range(world):
        sync = os.fsync

        def full_disk(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if rank == number:
            os.fsync = full_disk
        with pytest.raises(InputError, match=r"cannot write .*000000000030: No space left on device; free some space"):
            save_checkpoint(folder / "by two", 30, state(sharded))
        os.fsync = sync
        wrong = {"object": object()} if rank == number else {"object": 1}
        with pytest.raises(TypeError, match="object of the state is a object"):
            save_checkpoint(folder / "by two", 30, wrong)
        more = {"more": torch.zeros(1)} if rank == number else {}
        with pytest.raises(InputError, match=r"holds a run of another model .more is only in the model"):
            load_latest(folder / "by two", state(sharded) | more)
    dist.barrier()
    assert sorted(path.name for path in (folder / "by two").iterdir()) == ["000000000010", "000000000020"]
    parallel.stop()


@pytest.mark.skipif(not dist.is_available(), reason="torch without process groups")
def test_one_process_and_two_read_what_either_wrote(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "by one", 10, state(whole))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    programs = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), str(rank), "2"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [program.communicate(timeout=120)[0] for program in programs]
    finally:
        for program in programs:
            program.kill()
    assert [program.returncode for program in programs] == [0, 0], "\n".join(said)
    manifest = read_manifest(tmp_path / "by two" / "000000000020")
    assert (manifest.world, sorted(manifest.files)) == (2, ["0.safetensors", "1.safetensors"])
    assert sorted(path.name for path in (tmp_path / "by two" / "000000000020").iterdir())[-1] == NAME
    assert len(manifest.tensors["shards/uneven"].pieces) == 2
    assert len(manifest.tensors["copies/0"].pieces) == 1
    assert_same(load_latest(tmp_path / "by two", zeroed(state(whole))) or {}, state(whole))


if __name__ == "__main__":
    torch.set_num_threads(1)
    process(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Checkpoints of a run: whole or absent, the last two kept, resumed by any number of processes.

A checkpoint is a folder `<samples>/`: torch.distributed.checkpoint plans it, `reed_core.train.shards` writes it aside,
a manifest with the SHA-256 of every file seals it, and a rename gives it its name. So a run that is killed, or whose
disk is full, loses at most the checkpoint it was writing. Nothing in it is pickled: tensors are safetensors files,
the rest is JSON, so reading one runs no code of whoever wrote it.

In a process group every function here is called by all processes together; what fails on one is raised on all.
"""

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from reed_core.errors import InputError
from reed_core.train.manifest import Manifest, check_file, read_manifest
from reed_core.train.shard_file import dtype_name
from reed_core.train.shards import ShardReader, ShardWriter
from reed_core.train.state_tree import flatten, rebuild
from reed_core.train.tensor_plan import TensorLoadPlanner, TensorSavePlanner

KEEP = 2
_NUMBER = "[0-9]" * 12
_SENT = (InputError, OSError, TypeError, ValueError)

T = TypeVar("T")


def save_checkpoint(folder: Path, samples: int, state: dict[str, Any]) -> Path:
    """Writes a checkpoint and removes those older than the last two.

    What stands later than `samples` is removed too: a run that went back to an earlier checkpoint left it behind.

    Args:
        folder: The run's `checkpoints` folder, on a disk that all processes see.
        samples: Samples seen; names the checkpoint. One of the same number is replaced.
        state: Tensors (plain or DTensor), numbers, strings, None, and dicts, lists and tuples of them. A plain tensor
            is the same on all processes; what is no tensor is taken from the first.

    Returns:
        The checkpoint's folder.

    Raises:
        InputError: If it cannot be written; earlier checkpoints stay as they are.
        TypeError: If the state holds something else.
    """
    path = Path(folder) / f"{samples:012d}"
    rank, world = _place()
    tensors, outline = _together(partial(flatten, state))
    replaced = path.with_name(f".{path.name}.replaced.part")
    try:
        _together(partial(_exchange, path, replaced, rank))
        try:
            with ShardWriter(path, samples, outline, world) as writer, _dcp():
                dcp.save({"state": tensors}, storage_writer=writer, planner=TensorSavePlanner())
        except BaseException:
            _exchange(replaced, path, rank)
            raise
        _together(partial(_prune, path, rank))
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write {path}: {reason}; free some space or choose another place") from error
    return path


def load_latest(folder: Path, state: dict[str, Any]) -> dict[str, Any] | None:
    """Fills a state from the newest whole checkpoint; what a killed writer left behind is removed first.

    Args:
        folder: The run's `checkpoints` folder.
        state: A state with the tensors of the run, plain or DTensor, of any number of processes: they are filled in
            place. Its other values do not matter.

    Returns:
        The state with everything else as it was saved, or None if there is no checkpoint.

    Raises:
        InputError: If there are checkpoints and none is whole, or the state's tensors are not those of the newest
            whole one (then none was changed).
    """
    folder = Path(folder)
    rank, world = _place()
    names = _gathered(_together(partial(_found, folder, rank)))[0]
    tensors = _together(partial(flatten, state)).tensors
    problems: list[str] = []
    for name in reversed(names):
        manifest, problem = _together(partial(_examined, folder / name, rank, world))
        found = [one for one in _gathered(problem) if one is not None]
        if manifest is not None and not found:
            _together(partial(_check_fit, folder, manifest, tensors))
            with _dcp():
                reader = ShardReader(folder / name, manifest)
                dcp.load({"state": tensors}, storage_reader=reader, planner=TensorLoadPlanner())
            filled: dict[str, Any] = rebuild(manifest.outline, tensors)
            return filled
        problems += found
    if problems:
        reason = " ".join(problems[0].split())[:200]
        raise InputError(f"no checkpoint in {folder} can be read ({reason}); remove the folder to start again")
    return None


def _found(folder: Path, rank: int) -> list[str]:
    """On the first process: the checkpoints of a folder by age, after removing what killed writers left."""
    if rank:
        return []
    _remove(folder.glob(f".{_NUMBER}.*.part"))
    names = sorted(path.name for path in folder.glob(_NUMBER) if path.is_dir())
    earlier = sorted(folder.glob(f"{_NUMBER}.pt"))
    if earlier and not names:
        raise InputError(
            f"{folder} holds checkpoints of an earlier format ({earlier[-1].name}), which this version cannot read; "
            "use another folder, or remove it to start again"
        )
    return names


def _examined(path: Path, rank: int, world: int) -> tuple[Manifest | None, str | None]:
    """The manifest of a checkpoint, after this process has checked its share of the files; or what is wrong."""
    try:
        manifest = read_manifest(path)
        for name in sorted(manifest.files)[rank::world]:
            check_file(path, name, manifest.files[name])
    except InputError:
        raise
    except (OSError, ValueError) as error:
        return None, str(error)
    return manifest, None


def _check_fit(folder: Path, manifest: Manifest, tensors: dict[str, Tensor]) -> None:
    reason = ""
    for name in manifest.tensors.keys() ^ tensors.keys():
        reason = f"{name} is only in the {'checkpoint' if name in manifest.tensors else 'model'}"
        break
    else:
        for name, held in manifest.tensors.items():
            theirs = f"{held.dtype} {list(held.shape)}"
            ours = f"{dtype_name(tensors[name].dtype)} {list(tensors[name].shape)}"
            if ours != theirs:
                reason = f"{name} is {theirs} in the checkpoint, {ours} in the model"
                break
    if reason:
        raise InputError(f"{folder} holds a run of another model ({reason}); use another folder")


def _exchange(path: Path, other: Path, rank: int) -> None:
    """On the first process: moves what stands at one path to another, where nothing stands."""
    if rank == 0 and path.exists() and not other.exists():
        path.rename(other)


def _prune(path: Path, rank: int) -> None:
    """On the first process: leaves of a folder this checkpoint and the one before it."""
    if rank:
        return
    found = sorted(path.parent.glob(_NUMBER))
    kept = [one for one in found if one.name <= path.name][-KEEP:]
    for old in found:
        if old not in kept:
            old.rename(old.with_name(f".{old.name}.old.part"))
    _remove(path.parent.glob(f".{_NUMBER}.*.part"))


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        shutil.rmtree(path)


@contextmanager
def _dcp() -> Iterator[None]:
    """Raises what failed inside DCP as itself, and mutes its remark that there is one process."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as error:
        raise next(iter(error.failures.values()))[0] from None


def _place() -> tuple[int, int]:
    """The number of this process, and of all."""
    return (dist.get_rank(), dist.get_world_size()) if _grouped() else (0, 1)


def _grouped() -> bool:
    return dist.is_available() and dist.is_initialized()


def _gathered(value: T) -> list[T]:
    """The values of all processes."""
    if not _grouped():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _together(action: Callable[[], T]) -> T:
    """What the action gives on this process; an error of any process is raised on all."""
    mine: Exception | None = None
    try:
        result = action()
    except Exception as error:
        mine = error
    sent = mine if mine is None or isinstance(mine, _SENT) else RuntimeError(f"{type(mine).__name__}: {mine}")
    raised = [error for error in _gathered(sent) if error is not None]
    if mine is not None:
        raise mine
    if raised:
        raise raised[0]
    return result

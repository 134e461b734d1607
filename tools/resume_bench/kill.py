"""Runs of a program that are killed outright while they train, and what they leave."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reed_core.train.manifest import check_file, read_manifest

PAUSE = 0.002


@dataclass(frozen=True)
class Left:
    """What a killed run left.

    Attributes:
        newest: Samples of the newest checkpoint; 0 if there is none.
        readable: Whether it is whole, or there is none.
        writing: Whether the kill came during a save: an unfinished checkpoint, or an old one half removed, is there.
        damaged: What is wrong with the newest checkpoint.
    """

    newest: int
    readable: bool
    writing: bool
    damaged: str = ""


class EndedError(Exception):
    """The program ended by itself."""

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code, self.said = code, said


def run_to_end(program: Sequence[str], environment: Mapping[str, str], checkpoints: Path) -> float:
    """Runs a program to its end.

    Returns:
        Seconds from its first checkpoint to its end.
    """
    process = _started(program, environment)
    first = _wait_for_change(process, checkpoints)
    said = process.communicate()[0]
    if process.returncode:
        raise EndedError(process.returncode, said)
    return time.monotonic() - first


def run_and_kill(
    program: Sequence[str], environment: Mapping[str, str], checkpoints: Path, longest: float, rng: random.Random
) -> Left:
    """Runs a program and kills it, and every process it started, with SIGKILL.

    Args:
        program: The program.
        environment: Its environment.
        checkpoints: Where it writes checkpoints.
        longest: It is killed up to so many seconds after its first checkpoint, at a random moment.
        rng: Draws the moment.

    Raises:
        EndedError: If it ends before that.
    """
    process = _started(program, environment)
    _wait_for_change(process, checkpoints)
    time.sleep(rng.uniform(0, longest))
    family = _family(process.pid)
    early = process.poll() is not None
    for one in family:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
    said = process.communicate()[0]
    if early:
        raise EndedError(process.returncode, said)
    while any(_alive(one) for one in family):
        time.sleep(PAUSE)
    return look(checkpoints)


def look(checkpoints: Path) -> Left:
    """What a folder of checkpoints holds."""
    writing = any(checkpoints.glob(".*.part"))
    found = sorted(checkpoints.glob("[0-9]*"))
    if not found:
        return Left(0, True, writing)
    try:
        manifest = read_manifest(found[-1])
        for name, seal in manifest.files.items():
            check_file(found[-1], name, seal)
    except (OSError, ValueError) as error:
        return Left(int(found[-1].name), False, writing, str(error))
    return Left(manifest.samples, True, writing)


def _started(program: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _wait_for_change(process: "subprocess.Popen[str]", folder: Path) -> float:
    """Waits for the first new checkpoint of a process, or its end; the time then."""
    before = _names(folder)
    while process.poll() is None and not _names(folder) - before:
        time.sleep(PAUSE)
    return time.monotonic()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.exists() else set()


def _family(pid: int) -> list[int]:
    """A process and all that it started, the eldest first."""
    family = [pid]
    for one in family:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                family += [int(child) for child in children.read_text().split()]
            except OSError:
                continue
    return family


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False

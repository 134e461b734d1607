"""Whole runs: killed at random moments, and with a disk that fills up under them."""

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from reed_core.train.log import read_log

TOOLS = Path(__file__).parents[2] / "tools"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL and file size limits are POSIX")


@pytest.fixture(scope="module")
def toy() -> Iterator[ModuleType]:
    sys.path.insert(0, str(TOOLS))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("resume_bench.toy")
    torch.set_num_threads(threads)
    sys.path.remove(str(TOOLS))
    for name in [name for name in sys.modules if name.split(".")[0] == "resume_bench"]:
        del sys.modules[name]


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_killed_at_random_moments_a_run_ends_with_the_same_bits() -> None:
    done = subprocess.run(
        [sys.executable, TOOLS / "bench_resume.py", "--quick"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills 3, " in done.stdout
    assert "newest checkpoint not whole 0" in done.stdout
    assert "end identical to the uninterrupted run: yes" in done.stdout


LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_space(tmp_path: Path, toy: ModuleType) -> None:
    """The log still fits, a checkpoint does not."""
    from resume_bench.compare import differences

    toy.trainer(tmp_path / "whole", 80, 20).fit(progress=False)
    toy.trainer(tmp_path / "run", 80, 20, ends=40).fit(progress=False)
    held = files(tmp_path / "run" / "checkpoints")
    size = max(len(content) for content in held.values())
    arguments = [TOOLS / "resume_bench" / "toy.py", tmp_path / "run", "--samples", "80", "--every", "20"]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(size // 2), *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    place = re.escape(str(tmp_path / "run" / "checkpoints" / "0"))
    assert re.fullmatch(
        f"error: cannot write {place}[0-9]+: File too large; free some space or choose another place", line
    )
    assert files(tmp_path / "run" / "checkpoints") == held
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["samples"] >= 60
    toy.trainer(tmp_path / "run", 80, 20).fit(progress=False)
    assert differences(tmp_path / "whole", tmp_path / "run") == []


def test_the_comparison_would_notice(tmp_path: Path, toy: ModuleType) -> None:
    from resume_bench.compare import differences

    for name in ("one", "other"):
        toy.trainer(tmp_path / name, 8, 4).fit(progress=False)
    assert differences(tmp_path / "one", tmp_path / "other") == []
    path = tmp_path / "other" / "checkpoints" / f"{8:012d}" / "0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert len(differences(tmp_path / "one", tmp_path / "other")) == 1
    log = tmp_path / "other" / "log.jsonl"
    log.write_text(log.read_text().replace('"epoch": 0', '"epoch": 1', 1))
    assert len(differences(tmp_path / "one", tmp_path / "other")) == 2


def test_a_killed_writer_is_seen(tmp_path: Path, toy: ModuleType) -> None:
    from resume_bench.kill import look

    assert look(tmp_path / "absent").newest == 0
    toy.trainer(tmp_path, 8, 4).fit(progress=False)
    folder = tmp_path / "checkpoints"
    assert (look(folder).newest, look(folder).readable, look(folder).writing) == (8, True, False)
    (folder / ".000000000012.0123456789ab.part").mkdir()
    os.truncate(folder / f"{8:012d}" / "0.safetensors", 100)
    assert (look(folder).newest, look(folder).readable, look(folder).writing) == (8, False, True)

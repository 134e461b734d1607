"""What tests of several packages share."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A shell starts its background jobs with Ctrl-C ignored, and children inherit that: programs under test would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Workers of `pytest -n` share the cores: each of them, and what it starts, computes with one thread.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def reed_data() -> Path:
    """The folder of real data: the environment variable REED_DATA, or ../shared/data beside the repository."""
    folder = Path(os.environ.get("REED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set REED_DATA to run this test")
    return folder

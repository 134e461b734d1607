"""What torch.compile makes of taps, injected networks and readouts: one graph each.

The run-time checks of shapes that tests switch on cannot be compiled, so `compile_checks.py` runs in a process without.
"""

import os
import subprocess
import sys
from pathlib import Path

CHECKS = Path(__file__).with_name("compile_checks.py")


def test_everything_that_should_compiles_into_one_graph() -> None:
    options = ["-q", "-p", "no:cacheprovider", "--show-capture=no", "-o", "addopts=--import-mode=importlib"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(CHECKS)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout

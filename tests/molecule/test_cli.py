"""The command line of reed-molecule promises nothing that this version does not do."""

import subprocess
import sys


def call(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "reed_molecule", *args], capture_output=True, text=True, timeout=600)


def test_without_arguments_it_shows_its_help() -> None:
    shown, bare = call("--help"), call()
    assert (shown.returncode, bare.returncode) == (0, 0)
    assert bare.stdout == shown.stdout
    assert "ships no model and no command yet" in " ".join(shown.stdout.split())
    assert "Commands" not in shown.stdout


def test_a_command_it_does_not_have_is_refused() -> None:
    refused = call("train")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "train" in refused.stderr

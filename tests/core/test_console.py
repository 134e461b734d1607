"""How a command line ends, seen from outside: every case is a real process."""

import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import errno, os, sys, time
from typing import Annotated
import typer
from reed_core.console import report, run, version_option
from reed_core.errors import InputError

app = typer.Typer()

@app.callback()
def main(version: Annotated[bool, version_option("reed-core")] = False) -> None: ...

@app.command()
def fine(times: int = 1) -> None:
    report("working")
    for _ in range(times):
        sys.stdout.write("result\\n")

@app.command()
def echo() -> None:
    typer.echo("result")

@app.command()
def code() -> None:
    raise typer.Exit(7)

@app.command()
def returned() -> int:
    return 5

@app.command()
def bad() -> None:
    try:
        int("x")
    except ValueError as error:
        raise InputError("expected a number,\\n   received x") from error

@app.command()
def deep(kind: str) -> None:
    def inner(depth: int) -> None:
        if depth:
            return inner(depth - 1)
        raise KeyboardInterrupt if kind == "interrupt" else typer.Abort
    inner(20)

@app.command()
def wait(clean: str) -> None:
    try:
        sys.stdout.write("ready\\n")
        sys.stdout.flush()
        time.sleep(60)
    finally:
        open(clean, "w").close()

@app.command()
def ask() -> None:
    typer.confirm("really?")

@app.command()
def worker() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b"x")

@app.command()
def bug(kind: str) -> None:
    raise {"zero": ZeroDivisionError, "eof": EOFError, "missing": FileNotFoundError}[kind]("a bug")

@app.command()
def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "weights.bin")

run(app)
"""

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


@pytest.fixture
def call(program: list[str]) -> Call:
    def called(*args: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*program, *args], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=600
        )

    return called


def test_results_and_reports_go_to_their_own_streams(call: Call) -> None:
    ended = call("fine", "--times", "2")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "result\nresult\n", "working\n")


@pytest.mark.parametrize(("command", "code"), [("code", 7), ("returned", 5)])
def test_a_command_may_choose_its_exit_code(call: Call, command: str, code: int) -> None:
    ended = call(command)
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "", "")


def test_bad_input_is_one_line(call: Call) -> None:
    ended = call("bad")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: expected a number, received x\n"


@pytest.mark.parametrize(
    ("args", "said"), [(("fine", "--tims", "2"), "--tims"), (("fine", "--times", "two"), "--times"), (("fin",), "fin")]
)
def test_wrong_usage_is_named(call: Call, args: tuple[str, ...], said: str) -> None:
    ended = call(*args)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in ended.stderr
    assert "Usage:" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("kind", ["interrupt", "abort"])
def test_an_interrupt_deep_inside_says_so(call: Call, kind: str) -> None:
    ended = call("deep", kind)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_ends_a_running_command_and_lets_it_clean_up(program: list[str], tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    with subprocess.Popen([*program, "wait", str(clean)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=600)
    assert (process.returncode, stderr) == (130, b"interrupted\n")
    assert clean.exists()


def test_a_question_without_an_answer_is_an_interrupt(call: Call) -> None:
    ended = call("ask")
    assert ended.returncode == 130
    assert ended.stderr.endswith("interrupted\n")


@pytest.mark.parametrize("times", ["1", "200000"])
def test_a_reader_that_leaves_early_hears_nothing(program: list[str], times: str) -> None:
    """One line is written when the program ends, many while it still runs."""
    reader, writer = os.pipe()
    with subprocess.Popen([*program, "fine", "--times", times], stdout=writer, stderr=subprocess.PIPE) as process:
        os.close(writer)
        os.close(reader)
        _, stderr = process.communicate(timeout=600)
    assert (process.returncode, stderr) == (1, b"working\n")


@pytest.mark.parametrize("args", [["--help"], ["echo"], ["--version"]])
def test_a_reader_that_leaves_before_the_help_hears_nothing(program: list[str], args: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run([*program, *args], stdout=writer, stderr=subprocess.PIPE, timeout=600)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["fine", "echo", "--help"])
def test_no_space_for_the_results_is_one_line(call: Call, command: str) -> None:
    with open("/dev/full", "w") as full:
        ended = call(command, stdout=full.fileno())
    assert ended.returncode == 2
    assert [line for line in ended.stderr.splitlines() if line != "working"] == [
        "error: cannot write the results: No space left on device; free some space or choose another place"
    ]


def test_no_space_for_a_file_names_it(call: Call) -> None:
    ended = call("full")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: cannot write weights.bin: No space left")


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("bug", "zero"), "ZeroDivisionError"),
        (("bug", "eof"), "EOFError"),
        (("bug", "missing"), "FileNotFoundError"),
        (("worker",), "BrokenPipeError"),
    ],
)
def test_a_bug_keeps_its_traceback(call: Call, args: tuple[str, ...], name: str) -> None:
    ended = call(*args)
    assert ended.returncode == 1
    assert "Traceback (most recent call last)" in ended.stderr
    assert ended.stderr.strip().splitlines()[-1].startswith(name)


def test_the_version_is_the_installed_one(call: Call) -> None:
    ended = call("--version")
    assert (ended.returncode, ended.stdout) == (0, f"reed-core {importlib.metadata.version('reed-core')}\n")


def test_a_console_needs_no_torch_and_no_numpy() -> None:
    probe = "import sys, reed_core.console; print(sorted({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", probe], text=True) == "[]\n"

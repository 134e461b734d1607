"""`--help` of every command line is quick: it imports no torch, for no subcommand."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HEAVY = ["torch", "diffusers", "transformers", "timm", "rdkit", "e3nn", "torch_geometric", "esm", "matplotlib", "scipy"]

# One process asks every command of a program for its help, the program first, and says after each what is loaded.
PROBE = """
import contextlib, importlib, io, json, sys
program, entry, *heavy = sys.argv[1:]
module, function = entry.split(":")
cli = importlib.import_module(module)
import typer

def below(command, path):
    yield path
    for name, part in getattr(command, "commands", {}).items():
        yield from below(part, [*path, name])

found = []
for path in below(typer.main.get_command(cli.app), []):
    sys.argv = [program, *path, "--help"]
    code, out = "it did not end", io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            getattr(cli, function)()
        except SystemExit as end:
            code = end.code or 0
    loaded = [name for name in heavy if name in sys.modules]
    found.append({"path": path, "code": code, "help": out.getvalue(), "loaded": loaded})
print(json.dumps(found))
"""


def helps(program: str, entry: str, path: Path | None = None) -> list[dict[str, Any]]:
    """What each command of a program answered to `--help`, and which heavy modules it had loaded by then."""
    environment = dict(os.environ, **({"PYTHONPATH": str(path)} if path else {}))
    command = [sys.executable, "-c", PROBE, program, entry, *HEAVY]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout)
    return found


def test_domain_packages_have_a_command_line(package: Path, project: dict[str, Any]) -> None:
    if package.name != "reed-core":
        assert package.name in project["scripts"]


def test_help_loads_nothing_heavy(project: dict[str, Any]) -> None:
    """A module with a console script keeps its typer application in `app`."""
    for program, entry in project.get("scripts", {}).items():
        for found in helps(program, entry):
            command = " ".join([program, *found["path"]])
            assert found["code"] == 0, command
            assert "Usage: " in found["help"], command
            assert found["loaded"] == [], command


@pytest.mark.parametrize(
    ("early", "late", "loaded"),
    [("import torch", "", [["torch"], ["torch"], ["torch"]]), ("", "import torch", [[], [], []])],
)
def test_a_heavy_import_is_seen_when_help_meets_it(
    tmp_path: Path, early: str, late: str, loaded: list[list[str]]
) -> None:
    (tmp_path / "torch.py").touch()
    (tmp_path / "slow_cli.py").write_text(f"""
{early}
import typer
from reed_core.console import run

app, part = typer.Typer(), typer.Typer()
app.add_typer(part, name="part")

@app.callback()
def top() -> None: ...

@part.callback()
def within() -> None: ...

@part.command()
def deep() -> None:
    {late or "pass"}

def main() -> None:
    run(app)
""")
    found = helps("slow", "slow_cli:main", tmp_path)
    assert [answer["path"] for answer in found] == [[], ["part"], ["part", "deep"]]
    assert [answer["loaded"] for answer in found] == loaded
    assert [answer["code"] for answer in found] == [0, 0, 0]

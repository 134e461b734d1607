"""One version for the four packages, a lock that is current, and one command that runs the tests everywhere."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement


@pytest.fixture(scope="module")
def version(root: Path) -> str:
    """The version of the workspace, which all else must agree with."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def test_the_version_is_static_and_the_same(project: dict[str, Any], version: str) -> None:
    assert project["version"] == version
    assert "dynamic" not in project


def test_the_module_says_the_same_version(source: Path, version: str) -> None:
    said = [
        ast.literal_eval(node.value)
        for node in ast.parse((source / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    ]
    assert said == [version]


def test_domain_packages_pin_the_core_of_their_own_version(project: dict[str, Any], version: str) -> None:
    found = [Requirement(line) for line in project["dependencies"]]
    pins = [str(requirement.specifier) for requirement in found if requirement.name == "reed-core"]
    assert pins == ([] if project["name"] == "reed-core" else [f"=={version}"])


def test_the_changelog_has_an_entry(root: Path, version: str) -> None:
    entries = re.findall(r"^## \[([^\]]+)\]", (root / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert version in entries


def test_the_citation_names_the_version_and_the_paper(root: Path, version: str) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert {"cff-version", "message", "title", "authors", "license"} <= set(citation)
    assert any("2507.08980" in str(reference) for reference in citation["references"])


def test_the_lock_is_current(root: Path, uv: str) -> None:
    """Without the network: a lock that would have to change fails here for want of an index, which is a failure too."""
    checked = subprocess.run(
        [uv, "lock", "--check", "--offline"], cwd=root, capture_output=True, text=True, timeout=600
    )
    assert checked.returncode == 0, checked.stderr


def test_a_lock_behind_its_project_is_seen(root: Path, uv: str, tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_bytes((root / "uv.lock").read_bytes())
    for path in [root / "pyproject.toml", *root.glob("packages/*/pyproject.toml")]:
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text().replace('"typer>=0.15"', '"typer>=0.16"'))
    checked = subprocess.run([uv, "lock", "--check", "--offline"], cwd=tmp_path, capture_output=True, timeout=600)
    assert checked.returncode != 0


def test_the_readme_and_continuous_integration_run_the_same_tests(root: Path) -> None:
    script = root / ".ci" / "run"
    commands = [line for line in script.read_text().splitlines() if re.match(r"uv run .*\bpytest\b", line)]
    assert len(commands) == 1
    assert f"pip install uv && {commands[0]}\n" in (root / "README.md").read_text()
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)

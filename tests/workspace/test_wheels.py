"""Each package builds alone as a wheel, and its wheel works in a fresh environment that has only what it declares.

Installing torch anew costs five gigabytes where the cache and the environment are on different disks. So the wheels are
installed for real, by uv and without dependencies, into a new environment; what they declare (and what that declares
in turn, extras left out) is linked into it, distribution by distribution, from the environment that runs the tests.
Nothing else is visible there: not the sources, not an undeclared library that happens to be installed, no extra.
"""

import importlib.metadata
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

Wheels = dict[str, Path]


class Environment(NamedTuple):
    """A virtual environment: its programs and its libraries."""

    programs: Path
    libraries: Path

    def run(self, program: str, *args: str) -> subprocess.CompletedProcess[str]:
        """Runs one of its programs away from the sources."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        command = [str(self.programs / program), *args]
        return subprocess.run(command, cwd=self.libraries, env=clean, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="session")
def wheels(root: Path, uv: str, packages: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """One wheel for each package, built from the sources; with what is in uv's cache if that is enough."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [uv, "build", "--all-packages", "--wheel", "--quiet", "--out-dir", str(folder)]
    for mode in (["--offline"], []):
        built = subprocess.run([*command, *mode], cwd=root, capture_output=True, text=True, timeout=600)
        if built.returncode == 0:
            break
    assert built.returncode == 0, built.stderr
    found = {path.name.partition("-")[0].replace("_", "-"): path for path in folder.glob("*.whl")}
    assert set(found) == {path.name for path in packages}
    return found


def closure(requirements: list[str]) -> set[str]:
    """The installed distributions some requirements ask for, directly or not."""
    todo = [(Requirement(line), "") for line in requirements]
    asked: set[tuple[str, str]] = set()
    while todo:
        requirement, within = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": within}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {extra for known, extra in asked if known == name}:
            asked.add((name, extra))
            todo += [(Requirement(line), extra) for line in importlib.metadata.requires(name) or ()]
    return {name for name, _ in asked}


def link(names: set[str], libraries: Path) -> None:
    """Links the files of installed distributions into another environment."""
    for name in names:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}
        for top in tops:
            if not top.endswith(".pth") and not (libraries / top).exists():
                (libraries / top).symlink_to(Path(str(distribution.locate_file(top))))


@pytest.fixture(scope="module")
def environment(
    package: Path, packages: list[Path], wheels: Wheels, uv: str, tmp_path_factory: pytest.TempPathFactory
) -> Environment:
    """A fresh environment with one package, reed-core, and what the two declare."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True, timeout=600)
    places = {name: str(folder) for name in ("base", "platbase", "installed_base", "installed_platbase")}
    libraries = Path(sysconfig.get_path("purelib", "venv", places))
    programs = Path(sysconfig.get_path("scripts", "venv", places))
    install = [uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(folder)]
    names = {"reed-core", package.name}
    subprocess.run([*install, *(str(wheels[name]) for name in names)], check=True, timeout=600)
    lines: list[str] = []
    for path in packages:
        if path.name in names:
            lines += tomllib.loads((path / "pyproject.toml").read_text())["project"]["dependencies"]
    ours = {path.name for path in packages}
    link(closure([line for line in lines if Requirement(line).name not in ours]), libraries)
    return Environment(programs, libraries)


def contents(wheel: Path, module: str) -> set[str]:
    """The files of a module in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if name.startswith(f"{module}/")}


def test_the_wheel_holds_the_source_and_all_that_lies_in_it(package: Path, source: Path, wheels: Wheels) -> None:
    """Also `py.typed` and weights: a name that the ignore rules of git or of the builder catch would go missing."""
    written = {
        path.relative_to(source.parent).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert f"{source.name}/py.typed" in written
    assert contents(wheels[package.name], source.name) == written


def test_the_wheel_describes_itself(package: Path, wheels: Wheels) -> None:
    with zipfile.ZipFile(wheels[package.name]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode()
    assert "License-Expression: MIT\n" in text
    assert f"# {package.name}" in text.partition("\n\n")[2]


IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
print(package.__file__)
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def test_every_module_imports_with_what_is_declared(source: Path, environment: Environment) -> None:
    imported = environment.run("python", "-I", "-c", IMPORT_ALL, source.name)
    assert imported.returncode == 0, imported.stderr
    assert Path(imported.stdout.strip()).parent == environment.libraries / source.name


def test_the_environment_hides_what_is_not_declared(environment: Environment) -> None:
    """pytest and this repository's sources are beside us here, and must not be there."""
    probe = "import importlib.util, sys; print(importlib.util.find_spec('pytest'), *sys.path, sep='\\n')"
    found, *path = environment.run("python", "-I", "-c", probe).stdout.splitlines()
    assert found == "None"
    assert str(environment.libraries) in path
    assert not [place for place in path if "packages/reed" in place]


def test_the_command_line_starts(project: dict[str, Any], environment: Environment) -> None:
    for program in project.get("scripts", ()):
        shown = environment.run(program, "--version")
        assert (shown.returncode, shown.stdout) == (0, f"{project['name']} {project['version']}\n"), shown.stderr
        shown = environment.run(program, "--help")
        assert shown.returncode == 0, shown.stderr
        assert "Usage: " in shown.stdout


def test_a_closure_follows_markers_and_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = "Metadata-Version: 2.1\nName: drawer\nVersion: 1\nRequires-Dist: rich; extra == 'draw'\n"
    (tmp_path / "drawer-1.dist-info").mkdir()
    (tmp_path / "drawer-1.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    assert "markdown-it-py" in closure(["rich"])
    assert "markdown-it-py" in closure(["drawer[draw]"])
    assert closure(["drawer"]) == {"drawer"}
    assert closure(["rich; python_version < '3'"]) == set()

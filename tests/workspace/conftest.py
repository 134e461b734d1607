"""The tree the rules of the house are checked on. Tests that take `package` run once for each of its packages."""

import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "package" in metafunc.fixturenames:
        metafunc.parametrize("package", PACKAGES, ids=lambda path: path.name, scope="module")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the workspace."""
    return ROOT


@pytest.fixture(scope="session")
def packages() -> list[Path]:
    """The folders of all packages."""
    return PACKAGES


@pytest.fixture(scope="module")
def project(package: Path) -> dict[str, Any]:
    """The `[project]` table of one package."""
    table: dict[str, Any] = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def source(package: Path) -> Path:
    """The folder of one package's modules."""
    (folder,) = (path.parent for path in (package / "src").glob("*/__init__.py"))
    return folder


@pytest.fixture(scope="session")
def uv() -> str:
    """The uv that runs these tests, or the one on the path."""
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "the workspace is built with uv: pip install uv"
    return found

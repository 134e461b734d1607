"""Who may import whom, and that each package declares what it imports. Read from the source, lazy imports included."""

import ast
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CORE = "reed_core"
DOMAINS = {"reed_image", "reed_protein", "reed_molecule"}
DOMAIN_LIBRARIES = {"diffusers", "timm", "esm", "rdkit", "e3nn", "Bio", "torch_geometric"}
NOT_FOR_PACKAGES = {"tools", "tests", "examples", "conftest", "torchvision"}

# Import names that differ from the name of what is installed, and are known even where an extra is not installed.
DISTRIBUTIONS = {"Bio": "biopython", "PIL": "pillow", "esm": "fair-esm", "yaml": "pyyaml"}
INSTALLED = importlib.metadata.packages_distributions()


class Import(NamedTuple):
    """One import of a module from outside: its top-level name, and where it is written."""

    name: str
    where: str


# Modules of torch that need another distribution.
THROUGH = {"torch.utils.tensorboard": "tensorboard"}


def imports(source: Path) -> Iterator[Import]:
    """All absolute imports below a folder, those inside functions and through `import_module("...")` included."""
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if called in ("import_module", "__import__") and not str(node.args[0].value).startswith("."):
                    names = [str(node.args[0].value)]
            for name in names:
                where = f"{path.relative_to(source.parent)}:{node.lineno}"
                yield Import(name.partition(".")[0], where)
                if name in THROUGH:
                    yield Import(THROUGH[name], where)


def forbidden(module: str) -> set[str]:
    """What a package must not import."""
    if module == CORE:
        return NOT_FOR_PACKAGES | DOMAINS | DOMAIN_LIBRARIES
    return NOT_FOR_PACKAGES | (DOMAINS - {module})


def crossings(source: Path) -> list[str]:
    """The imports that go against the arrows."""
    names = forbidden(source.name)
    return [f"{found.where} imports {found.name}" for found in imports(source) if found.name in names]


def declared(project: dict[str, Any]) -> set[str]:
    """The names of all dependencies, those of extras included; the package itself may be named by its extras."""
    lines = [*project.get("dependencies", ())]
    for extra in project.get("optional-dependencies", {}).values():
        lines += extra
    return {canonicalize_name(Requirement(line).name) for line in lines} - {canonicalize_name(project["name"])}


def suppliers(name: str) -> set[str]:
    """The distributions an import may come from."""
    if name in DISTRIBUTIONS:
        return {DISTRIBUTIONS[name]}
    return {canonicalize_name(supplier) for supplier in INSTALLED.get(name, [name])}


def undeclared(source: Path, project: dict[str, Any]) -> list[str]:
    """The imports that no dependency supplies."""
    own = {source.name, *sys.stdlib_module_names}
    known = declared(project)
    return [
        f"{found.where} imports {found.name}"
        for found in imports(source)
        if found.name not in own and not suppliers(found.name) & known
    ]


def unused(source: Path, project: dict[str, Any]) -> set[str]:
    """The dependencies that no import needs."""
    return declared(project) - {supplier for found in imports(source) for supplier in suppliers(found.name)}


def test_all_packages_are_known(packages: list[Path]) -> None:
    assert {path.name.replace("-", "_") for path in packages} == {CORE, *DOMAINS}


def test_arrows_point_one_way(source: Path) -> None:
    assert crossings(source) == []


def test_what_is_imported_is_declared(source: Path, project: dict[str, Any]) -> None:
    assert undeclared(source, project) == []


def test_what_is_declared_is_imported(source: Path, project: dict[str, Any]) -> None:
    """By the package; an extra may be there for an example that shows how to use the package beside another library."""
    examples = Path(__file__).parents[2] / "examples"
    shown = {supplier for found in imports(examples) for supplier in suppliers(found.name)}
    needed = {canonicalize_name(Requirement(line).name) for line in project.get("dependencies", ())}
    assert unused(source, project) - (shown - needed) == set()


FORMS = [
    "import {}",
    "import {}.sub as other",
    "from {} import name",
    "from {}.sub import name",
    "import os, {}",
    "def late():\n    import {}",
    "class Late:\n    def late(self):\n        from {}.sub import name",
    "if TYPE_CHECKING:\n    import {}",
    "try:\n    import {}\nexcept ImportError:\n    pass",
    "importlib.import_module('{}.sub')",
    "import_module('{}')",
    "__import__('{}')",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("module", "other"),
    [("reed_core", "rdkit"), ("reed_core", "reed_image"), ("reed_protein", "reed_molecule"), ("reed_image", "tools")],
)
def test_every_form_of_a_crossing_is_seen(tmp_path: Path, module: str, other: str, form: str) -> None:
    source = tmp_path / module
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file.py").write_text(form.format(other))
    assert len(crossings(source)) == 1
    assert f"imports {other}" in crossings(source)[0]
    assert len(undeclared(source, {"name": "x", "dependencies": ["numpy"]})) == 1


def test_what_is_allowed_is_not_a_crossing(tmp_path: Path) -> None:
    source = tmp_path / "reed_protein"
    source.mkdir()
    (source / "file.py").write_text(
        "import os\nimport Bio.PDB\nfrom . import tools\nfrom .reed_image import x\nfrom reed_core import y\n"
        "from reed_protein.tools import z\n'import reed_image'\n"
    )
    assert crossings(source) == []
    extras = {"io": ["biopython>1"]}
    project = {"name": "reed-protein", "dependencies": ["Reed_Core==1"], "optional-dependencies": extras}
    assert undeclared(source, project) == []
    assert unused(source, project) == set()


def test_a_dependency_nobody_imports_is_seen(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("import yaml\nimport torch.nn\n")
    extras = {"late": ["fair-esm[x]>=2; python_version > '3'"], "all": ["me[late]"]}
    project = {"name": "me", "dependencies": ["PyYAML", "torch>=2", "rich"], "optional-dependencies": extras}
    assert unused(tmp_path, project) == {"rich", "fair-esm"}

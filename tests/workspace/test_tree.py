"""What lies in the repository: short files of few kinds, no trace of a machine, no copied data, weights with a card."""

import ast
import hashlib
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

MOST_LINES = 400
MOST_WEIGHT_BYTES = 16_000_000

# Put together here, so that this file does not hold what it forbids.
MACHINE_PATH = re.compile(rf"(?<![\w.~-])/({'|'.join(['work', 'home', 'root'])})/")
REGISTRY_HOST = re.compile("|".join(rf"\b{name}\.{end}\b" for name, end in [("pypi", "org"), ("pythonhosted", "org")]))


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    """Every file of the repository: what git tracks, and what it would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=600)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the repository is not known")
    paths = [root / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def sources(packages: Iterable[Path]) -> list[Path]:
    """The modules of the packages."""
    return sorted(path for package in packages for path in package.rglob("*.py") if ".venv" not in path.parts)


def text(path: Path) -> str:
    """The text of a file; empty if it is not text."""
    content = path.read_bytes()
    if b"\0" in content:
        return ""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return ""


def matches(paths: Iterable[Path], pattern: re.Pattern[str]) -> list[str]:
    """Where a pattern is written."""
    return [
        f"{path}:{number}: {line.strip()[:80]}"
        for path in paths
        for number, line in enumerate(text(path).splitlines(), start=1)
        if pattern.search(line)
    ]


def prints(paths: Iterable[Path]) -> list[str]:
    """Where `print` is called."""
    return [
        f"{path}:{node.lineno}"
        for path in paths
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def copies(paths: Iterable[Path], data: Path) -> list[str]:
    """The files that are, byte by byte, one of the data folder. Only files of equal size are read."""
    ours: dict[int, list[Path]] = {}
    for path in paths:
        ours.setdefault(path.stat().st_size, []).append(path)
    ours.pop(0, None)
    theirs = {
        hashlib.sha256(path.read_bytes()).digest(): path
        for path in data.rglob("*")
        if path.is_file() and path.stat().st_size in ours
    }
    sizes = {path.stat().st_size for path in theirs.values()}
    return [
        f"{path} is {theirs[digest]}"
        for size in sizes
        for path in ours[size]
        if (digest := hashlib.sha256(path.read_bytes()).digest()) in theirs
    ]


def uncarded(packages: Iterable[Path]) -> list[str]:
    """What is wrong with the weights of the packages: too large, no card, or a hash that no file beside them names."""
    found = []
    for package in packages:
        for path in sorted(package.rglob("*.safetensors")):
            if path.stat().st_size > MOST_WEIGHT_BYTES:
                found.append(f"{path} holds {path.stat().st_size} bytes")
            if not (path.parent / "MODEL_CARD.md").is_file():
                found.append(f"{path} has no MODEL_CARD.md beside it")
            beside = [other for other in path.parent.iterdir() if other.is_file() and other != path]
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if not any(digest in text(other) for other in beside):
                found.append(f"{path}: its SHA-256 {digest} is in no file beside it")
    return found


def test_no_module_is_long(packages: list[Path]) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in sources(packages)}
    assert len(lengths) > 10
    assert {path: lines for path, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_module_is_a_drawer(packages: list[Path]) -> None:
    assert [path for path in sources(packages) if path.stem in ("util", "utils", "helpers", "misc", "common")] == []


def test_packages_do_not_print(packages: list[Path]) -> None:
    assert prints(sources(packages)) == []


def test_no_path_of_a_machine(files: list[Path]) -> None:
    assert matches(files, MACHINE_PATH) == []


def test_no_package_registry_is_named(files: list[Path]) -> None:
    assert matches([path for path in files if path.name != "uv.lock"], REGISTRY_HOST) == []


def test_no_data_is_copied(files: list[Path], root: Path) -> None:
    data = Path(os.environ.get("REED_DATA", root.parent / "shared" / "data"))
    if not data.is_dir():
        pytest.skip("REED_DATA is not here")
    assert copies(files, data) == []


def test_weights_are_small_and_described(packages: list[Path]) -> None:
    assert uncarded(packages) == []


@pytest.mark.parametrize("part", ["work", "home", "root"])
def test_a_machine_path_is_seen(tmp_path: Path, part: str) -> None:
    path = tmp_path / "file.md"
    path.write_text(f"fine: docs/{part}/x, https://a.b/{part}/x, {part}/x, ./{part}/, ~/{part}/x\nbad: '/{part}/x'\n")
    assert len(matches([path], MACHINE_PATH)) == 1
    path.write_text(f"/{part}/x\n(/{part}/x)\nfile:///{part}/x\nA=/{part}/x\n")
    assert len(matches([path], MACHINE_PATH)) == 4


def test_a_registry_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    names = ("pypi", "test.pypi", "files.pythonhosted", "pypiorg")
    path.write_text("".join(f"https://{name}.org/x\n" for name in names))
    assert len(matches([path], REGISTRY_HOST)) == 3


def test_a_print_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text('"""print(1)"""\ndef late():\n    print("x")\nclass A:\n    def print(self): self.print()\n')
    assert prints([path]) == [f"{path}:3"]


def test_a_copy_is_seen_under_another_name(tmp_path: Path) -> None:
    data, ours = tmp_path / "data" / "deep", tmp_path / "ours"
    data.mkdir(parents=True)
    ours.mkdir()
    for path, content in {data / "a": b"abc", ours / "copy": b"abc", ours / "own": b"abd"}.items():
        path.write_bytes(content)
    (data / "empty").touch()
    (ours / "empty").touch()
    assert copies(sorted(ours.iterdir()), data.parent) == [f"{ours / 'copy'} is {data / 'a'}"]


def test_weights_without_card_hash_or_measure_are_seen(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "module" / "weights" / "base"
    folder.mkdir(parents=True)
    weights = folder / "model.safetensors"
    weights.write_bytes(b"x" * 10)
    assert len(uncarded([tmp_path])) == 2
    (folder / "MODEL_CARD.md").write_text("A card.")
    assert len(uncarded([tmp_path])) == 1
    (folder / "config.json").write_text(f'{{"sha256": "{hashlib.sha256(b"x" * 10).hexdigest()}"}}')
    assert uncarded([tmp_path]) == []
    with weights.open("wb") as stream:
        stream.truncate(MOST_WEIGHT_BYTES + 1)
    assert len(uncarded([tmp_path])) == 2

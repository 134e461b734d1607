"""`esm` is the import name of two packages: the base install has neither, and inference looks for none."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from reed_core.errors import InputError

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "packages/reed-protein/src"
PROGRAM = """
import json, sys
sys.argv = ["reed-protein", *json.loads(sys.argv[1])]
from reed_protein.cli import main
try:
    main()
finally:
    found = sorted(name for name in sys.modules if name.split(".")[0] == "esm")
    sys.stderr.write("loaded " + json.dumps(found) + "\\n")
"""


@pytest.fixture
def decoy(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing `esm` ends the program."""
    (tmp_path / "esm").mkdir()
    (tmp_path / "esm/__init__.py").write_text("raise SystemExit('esm was imported')\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def test_the_base_install_requires_no_esm() -> None:
    base = [Requirement(line) for line in importlib.metadata.requires("reed-protein") or ()]
    names = {one.name for one in base if one.marker is None or one.marker.evaluate({"extra": ""})}
    assert "biopython" in names
    assert not names & {"fair-esm", "esm"}


def test_the_package_ships_no_module_of_that_name() -> None:
    shipped = [path for path in SOURCE.rglob("*") if path.stem == "esm" and path.suffix in ("", ".py")]
    assert shipped == []
    assert [path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()] == ["reed_protein"]


@pytest.mark.parametrize("name", ["fold-invert", "evaluate"])
def test_inference_never_imports_it(name: str, decoy: dict[str, str], tmp_path: Path) -> None:
    structure = sorted((ROOT / "examples").glob("*.pdb"))[0]
    arguments = [name, str(structure), "--steps", "2", "--device", "cpu"]
    if name == "evaluate":
        from made_chains import helices
        from numpy import array, concatenate, cumsum, float32, int16, savez

        chains = helices(18)
        savez(
            tmp_path / "c.npz",
            coords=concatenate([(arrays.coords / 0.005).round() for arrays in chains.arrays]).astype(int16),
            scale=float32(0.005),
            offsets=cumsum([0, 18]),
            resnum=chains.arrays[0].position.astype(int16),
            ids=array(["h0"]),
            seqs=array(["A" * 18]),
        )
        arguments[1] = str(tmp_path / "c.npz")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)], env=decoy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = next(line for line in done.stderr.splitlines() if line.startswith("loaded "))
    assert loaded == "loaded []"


def test_a_decoy_would_be_seen(decoy: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", "import esm"], env=decoy, capture_output=True, text=True)
    assert "esm was imported" in done.stderr


def test_without_it_an_esm_latent_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from reed_protein.encoders import load_esm2

    monkeypatch.setitem(sys.modules, "esm.model.esm2", None)
    with pytest.raises(InputError, match=r"reed-protein\[esm\]") as caught:
        load_esm2("esm2_t6_8M_UR50D")
    assert "\n" not in str(caught.value)

"""The weights that come with the package: whole, small, described, and as good as their card says, in a small draw."""

from pathlib import Path

import pytest
from reed_molecule.build import Failure
from reed_molecule.completion import complete, kept_in
from reed_molecule.fragment import read_fragment
from reed_molecule.generate import BUNDLED, Request, Sizes, load, weights_folder
from reed_molecule.metrics.stability import Convention, stability

FOLDERS = sorted(path.parent for path in BUNDLED.glob("*/config.json"))
EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = [folder.name for folder in FOLDERS]


def test_they_are_there_and_small() -> None:
    assert {"qm9", "drugs"} <= set(NAMES)
    for folder in FOLDERS:
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 16 * 2**20
        card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
        assert all(f"| {row} |" in card for row in ("data", "split", "recipe", "steps", "hardware", "seed"))


def test_a_bare_name_is_that_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qm9").mkdir()
    assert weights_folder("qm9") == BUNDLED / "qm9"
    assert weights_folder("./qm9") == Path("qm9")
    assert weights_folder(tmp_path / "qm9") == tmp_path / "qm9"


def test_most_atoms_are_stable_in_twenty_steps() -> None:
    """The card has 96 % of atoms in 20 steps at temperature 1; noise alone has less than a third."""
    generator = load("qm9")
    assert generator.known is not None

    def share(steps: int) -> float:
        drawn = generator.draw(Request(24, steps, seed=3)).samples
        molecules = [one.item for one in drawn if not isinstance(one.item, Failure)]
        return stability(molecules, Convention.BONDS).atom_fraction

    assert share(20) > 0.9 > share(1)


def test_most_completions_are_one_molecule() -> None:
    """The card has nine of ten in 100 steps; new atoms drawn without a look at the fragment lie elsewhere."""
    generator, fragment = load("drugs"), read_fragment(EXAMPLES / "benzamide.sdf", replace="1")
    assert generator.model.config.network.parts
    drawn = complete(generator, fragment, Request(8, steps=20, seed=1), add=Sizes.between(4, 9))
    kept = [kept_in(sample, fragment) for sample in drawn.samples]
    assert sum(one is not None and one.attached for one in kept) >= 5
    assert all(one is None or one.rmsd == 0.0 for one in kept)

"""Pictures: what they show is right, they are whole, and a missing matplotlib is one clear sentence."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_structures import helix
from reed_core.errors import InputError
from reed_protein import figure, heatmap, logo, recovery_figure
from reed_protein.residues import AMINO_ACIDS
from reed_protein.scan import MutationScan
from reed_protein.structure import Structure

PNG = b"\x89PNG\r\n\x1a\n"


def two_chains(first: int, second: int) -> Structure:
    plain = helix(first + second)
    chains = ("A",) * first + ("B",) * second
    ids = tuple(f"{chain}{index + 1}" for index, chain in enumerate(chains))
    return replace(plain, chain_ids=chains, residue_ids=ids)


def size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == PNG
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_rows_hold_every_residue_once_and_no_two_chains() -> None:
    structure = two_chains(figure.PER_ROW + 3, 5)
    rows = figure.split_rows(structure, range(len(structure)))
    assert [len(row) for row in rows] == [figure.PER_ROW, 3, 5]
    assert [position for row in rows for position in row] == list(range(len(structure)))
    assert figure.split_rows(structure, [2, 64]) == [[2], [64]]


def test_every_amino_acid_has_one_family_and_every_family_its_colour() -> None:
    assert sorted("".join(figure.FAMILIES)) == list(AMINO_ACIDS)
    assert len(set(figure.FAMILIES.values())) == len(figure.FAMILIES) == len(figure.FAMILY_NAMES)


def test_heights_are_the_information_in_bits() -> None:
    certain, even, pair = np.eye(20)[3], np.full(20, 0.05), np.eye(20)[[3, 4]].mean(0)
    bits = logo.letter_heights(np.stack([certain, even, pair]), "bits")
    np.testing.assert_allclose(bits.sum(1), [np.log2(20), 0.0, np.log2(20) - 1], atol=1e-12)
    np.testing.assert_allclose(bits[2, [3, 4]], bits[2].sum() / 2)
    np.testing.assert_array_equal(logo.letter_heights(pair[None], "probability")[0], pair)


def test_frequencies_count_letters() -> None:
    share = logo.frequencies(["AC", "AD", "CD", "XD"])
    np.testing.assert_allclose(share.sum(1), 1.0, atol=1e-6)
    assert share[0, 0] == pytest.approx(0.5 + 0.25 / 20)
    assert share[1, 2] == pytest.approx(0.75)
    with pytest.raises(InputError, match="at least one sequence"):
        logo.frequencies([])


def test_colours_say_where_a_design_agrees() -> None:
    dark, light, white, fixed = (
        recovery_figure.agreement(native, letter, np.array([free]))[0]
        for native, letter, free in [("L", "L", True), ("L", "I", True), ("L", "K", True), ("L", "L", False)]
    )
    assert len({dark, light, white, fixed}) == 4
    assert recovery_figure.agreement("XL", "LX", np.array([True, True])) == [white, white]


@pytest.mark.parametrize("kind", ["heatmap", "logo", "recovery"])
def test_pictures_are_made_and_grow_by_panels(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def draw(structure: Structure) -> tuple[int, int]:
        path, length = tmp_path / f"{len(structure)}.png", len(structure)
        if kind == "heatmap":
            odds = rng.normal(size=(length, 20)).astype(np.float32)
            heatmap.draw_heatmap(path, MutationScan(structure, structure.sequence, np.arange(length), odds, odds))
        elif kind == "logo":
            logo.draw_logo(path, structure, rng.dirichlet(np.ones(20), length).astype(np.float32), "made")
        else:
            designs = [structure.sequence, "A" * length]
            recovery_figure.draw_recovery(path, structure, designs, np.arange(length) > 3)
        return size(path)

    short, long = draw(helix(figure.PER_ROW)), draw(two_chains(figure.PER_ROW + 10, 5))
    assert short[0] == long[0]
    assert 1.5 * short[1] < long[1] < 3 * short[1], "three panels instead of one"
    assert long[0] >= 1200, "letters can be read"


def test_a_picture_too_tall_to_read_is_refused(tmp_path: Path) -> None:
    structure = helix(30)
    with pytest.raises(InputError, match="choose fewer residues"):
        figure.canvas(structure, [[0]] * 200, 0.1, 2.0, 0.3, "tall")


def test_without_matplotlib_one_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'reed-protein\[plot\]'"):
        figure.check_png_path(tmp_path / "x.png", "--logo")
    structure = helix(12)
    with pytest.raises(InputError, match="matplotlib"):
        logo.draw_logo(tmp_path / "x.png", structure, np.full((12, 20), 0.05, np.float32), "made")
    assert list(tmp_path.iterdir()) == []


def test_another_ending_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"--heatmap x\.pdf: pictures are written as \.png"):
        figure.check_png_path(Path("x.pdf"), "--heatmap")

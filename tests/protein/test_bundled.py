"""The weights that come with the package, on the example structures."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from reed_core.files import sha256
from reed_core.train.config import read_config
from reed_protein.backbone import Backbone, residue_arrays
from reed_protein.dataset import ChainSet
from reed_protein.design import BUNDLED, Designer, load
from reed_protein.evaluation import evaluate
from reed_protein.network import MASK_TOKEN
from reed_protein.recipe import Recipe
from reed_protein.residues import tokens
from reed_protein.structure import Structure, read_structure

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.pdb"))


@pytest.fixture(scope="module")
def designer() -> Designer:
    return load()


@pytest.fixture(scope="module")
def structures() -> list[Structure]:
    return [read_structure(path) for path in EXAMPLES]


def test_they_are_small_and_whole() -> None:
    weights = BUNDLED / "model.safetensors"
    assert weights.stat().st_size <= 16_000_000
    assert json.loads((BUNDLED / "config.json").read_text())["sha256"] == sha256(weights)


def test_their_recipe_describes_them() -> None:
    recipe = read_config(Recipe, BUNDLED.parents[1] / "recipes" / f"{BUNDLED.name}.toml")
    assert json.loads((BUNDLED / "config.json").read_text())["model"] == recipe.network.model_dump(mode="json")
    assert len({item.tap for item in recipe.latents}) >= 2


def test_designs_resemble_the_native_far_beyond_chance(designer: Designer, structures: list[Structure]) -> None:
    """Chance is the overlap of two random sequences of natural composition, about 0.06."""
    recoveries = [design.recovery for s in structures for design in designer.design(s, num=2)]
    assert np.mean(recoveries) > 0.2


def test_a_native_sequence_is_more_probable_than_a_shuffled_one(
    designer: Designer, structures: list[Structure]
) -> None:
    generator = np.random.default_rng(0)
    for structure in structures:
        native = designer.score_native(structure)
        shuffled = dataclasses.replace(structure, sequence="".join(generator.permutation(list(structure.sequence))))
        other = designer.score_native(shuffled)
        assert native is not None
        assert other is not None
        assert native < other - 0.3
        assert native < np.log(20)


def test_alone_and_in_a_padded_batch_the_logits_agree(designer: Designer, structures: list[Structure]) -> None:
    together = Backbone.collate([residue_arrays(structure) for structure in structures])
    x_t = torch.full(together.mask.shape, MASK_TOKEN)
    for row, structure in enumerate(structures):
        known = torch.from_numpy(tokens(structure.sequence))
        x_t[row, : len(structure) : 3] = known[::3]
    logits = designer.network(x_t, None, together)
    for row, structure in enumerate(structures):
        n = len(structure)
        alone = designer.network(x_t[row : row + 1, :n], None, Backbone.from_structure(structure))
        torch.testing.assert_close(logits[row, :n], alone[0], atol=1e-5, rtol=0)


def test_rotation_and_translation_change_nothing(designer: Designer, structures: list[Structure]) -> None:
    generator = torch.Generator().manual_seed(0)
    for structure in structures:
        backbone = Backbone.from_structure(structure)
        rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
        rotation = rotation * torch.linalg.det(rotation).sign()
        moved = dataclasses.replace(backbone, coords=backbone.coords @ rotation.T + torch.tensor([7.0, -3.0, 12.0]))
        x_t = torch.full(backbone.mask.shape, MASK_TOKEN)
        before, after = designer.network(x_t, None, backbone), designer.network(x_t, None, moved)
        torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_ten_valid_chains_are_recovered_as_the_model_card_leads_to_expect(designer: Designer, reed_data: Path) -> None:
    """Ten chains vary by several points around the card's median; far below it, weights or code are broken."""
    chains = ChainSet.read(reed_data / "protein" / "backbones_valid.npz")
    some = sorted(range(len(chains)), key=lambda item: len(chains.tokens[item]))[20:60:4]
    few = ChainSet(*(tuple(column[item] for item in some) for column in (chains.ids, chains.arrays, chains.tokens)))
    found = evaluate(designer.network, few)
    assert found.median_recovery > 0.28
    assert found.perplexity_any_order < 9.0

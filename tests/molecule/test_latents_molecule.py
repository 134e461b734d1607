"""Latents of a recipe: caches written in parts, refusals, the shuffled control, and training with all kinds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from molecule.molecule_sets import make_set, molecules
from pydantic import ValidationError
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.noise import NoiseSource
from reed_core.train.config import read_config
from reed_molecule.dataset import MoleculeSet, TrainingData
from reed_molecule.latents import (
    BatchLatents,
    Shuffled,
    build_latents,
    featurize,
    open_plan,
    open_sources,
    partners,
    plan_of,
    transplant,
)
from reed_molecule.latents.store import plans_of
from reed_molecule.model import MoleculeModel, new_config
from reed_molecule.network import NetworkConfig
from reed_molecule.process import molecule_process
from reed_molecule.recipe import RECIPES, Recipe
from reed_molecule.training import Told, build_objective, run_recipe
from reed_molecule.vocabulary import QM9

NETWORK = {"width": 16, "vectors": 4, "pairs": 8, "blocks": 2, "heads": 2, "radial": 8}


def recipe(folder: Path, *latents: dict[str, Any], **settings: Any) -> Recipe:
    values = {
        "data": str(folder / "set.reed"),
        "batch_pairs": 300,
        "cache": str(folder / "cache"),
        "network": NETWORK,
        "latents": [{"tap": "blocks.0", "weight": 0.5, **latent} for latent in latents],
        "train": {"samples": 18, "checkpoint_every": 10**6},
        **settings,
    }
    return Recipe.model_validate(values)


SYMMETRY = {"kind": "symmetry", "radial": 4, "angular": 2}
PAIRS = {"kind": "pairs", "tap": "blocks.0:2"}
RDKIT = {"kind": "rdkit", "what": "morgan", "tap": "blocks.1"}
E3NN = {"kind": "e3nn", "width": 4, "layers": 1}
BONDS = {"kind": "bond_graph", "width": 6, "layers": 1, "level": "global"}


def test_caches_in_parts_hold_what_the_encoder_says(tmp_path: Path) -> None:
    known = make_set(tmp_path)
    made = recipe(tmp_path, {**SYMMETRY, "cached": True, "format": "float32"}, {**RDKIT, "format": "float32"})
    token, whole = plans_of(made.active, known, made.cache)
    assert featurize(token, known, part=(1, 2), shard_items=4) is None
    with pytest.raises(InputError, match="reed-molecule featurize"):
        open_plan(token)
    assert featurize(token, known, part=(0, 2), shard_items=4) is not None
    assert featurize(whole, known) is not None
    live = open_sources(recipe(tmp_path, SYMMETRY).active, known, tmp_path)["symmetry"]
    stored = open_sources(made.active, known, Path(made.cache))
    sizes = torch.from_numpy(known.sizes[[4, 2]])
    mask = torch.arange(int(sizes.max()))[None] < sizes[:, None]
    here, there = live([4, 2], mask), stored["symmetry"]([4, 2], mask)
    torch.testing.assert_close(there.z, here.z)
    assert torch.equal(there.mask, mask)
    assert stored["rdkit"]([4, 2], mask).z.shape == (2, whole.dim)


def test_a_cache_belongs_to_its_settings_and_molecules(tmp_path: Path) -> None:
    known = make_set(tmp_path)
    plan = plan_of(recipe(tmp_path, RDKIT).active[0], known, tmp_path)
    others = [
        plan_of(recipe(tmp_path, {**RDKIT, **change}).active[0], known, tmp_path)
        for change in ({"what": "descriptors"}, {"format": "int8"})
    ]
    others.append(plan_of(plan.spec, MoleculeSet.read(tmp_path / "set.reed", "valid"), tmp_path))
    assert len({plan.folder, *(other.folder for other in others)}) == 4
    same = plan_of(
        recipe(tmp_path, {**RDKIT, "weight": 2.0, "tap": "blocks.0", "name": "r"}).active[0], known, tmp_path
    )
    assert same.folder == plan.folder


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    known = make_set(tmp_path)
    lost = recipe(tmp_path, {**E3NN, "weights": str(tmp_path / "absent")})
    with pytest.raises(InputError, match="reed-molecule pretrain e3nn"):
        plan_of(lost.active[0], known, tmp_path)


def test_partners_and_transplants(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sizes = np.sort(generator.integers(5, 9, 300))
    identities = np.repeat(np.arange(100), 3)
    found = partners(sizes, identities, 1)
    assert sorted(found) == list(range(300))
    assert (identities[found] != identities).all()
    assert np.abs(sizes[found] - sizes).mean() < 0.5
    assert not np.array_equal(found, partners(sizes, identities, 2))
    with pytest.raises(InputError, match="two molecules"):
        partners(sizes[:1], identities[:1], 0)
    theirs, ours = torch.tensor([[True, True, False]]), torch.tensor([[True] * 3 + [False]])
    z = torch.tensor([[[1.0], [2.0], [9.0]]])
    moved = transplant(Representation(z), theirs, ours, pair=False)
    assert moved.z[0, :, 0].tolist() == [1.0, 2.0, 1.0, 2.0]
    assert torch.equal(moved.mask, ours)
    pair = torch.tensor([[[-1, 3, 9], [3, -1, 9], [9, 9, 9]]])
    laid = transplant(Representation(pair, pair.ge(0) & pair.lt(9)), theirs, ours, pair=True)
    assert laid.z[0, 0].tolist() == [-1, 3, -1, 3]
    assert laid.mask[0, 0].tolist() == [False, True, False, False]


def test_the_shuffled_control_gives_another_molecule_its_own_z(tmp_path: Path) -> None:
    known = make_set(tmp_path)
    made = recipe(tmp_path, {**SYMMETRY, "level": "global"}, PAIRS)
    plain, mixed = (open_sources(made.active, known, tmp_path, shuffle) for shuffle in (None, 3))
    shuffled = mixed["symmetry"]
    assert isinstance(shuffled, Shuffled)
    items = list(range(len(known)))
    mask = torch.arange(int(known.sizes.max()))[None] < torch.from_numpy(known.sizes)[:, None]
    own, other = plain["symmetry"](items, mask), shuffled(items, mask)
    torch.testing.assert_close(other.z, own.z[torch.from_numpy(shuffled.partner)])
    assert (shuffled.partner != np.arange(len(known))).all()
    laid = mixed["pairs"](items, mask)
    assert laid.z.shape == (len(known), *[mask.shape[1]] * 2)
    assert not (laid.mask & ~(mask[:, :, None] & mask[:, None])).any()


@pytest.mark.parametrize("shuffle", [False, True])
def test_training_with_every_kind(tmp_path: Path, shuffle: bool) -> None:
    pytest.importorskip("e3nn")
    pytest.importorskip("torch_geometric")
    known = make_set(tmp_path)
    np.savez(tmp_path / "arrays.npz", z=np.random.default_rng(0).normal(size=(len(known), 5)))
    array = {"kind": "arrays", "path": str(tmp_path / "arrays.npz"), "dim": 5, "level": "global", "head": "gaussian"}
    more = [{**PAIRS, "name": "bins", "what": "distance", "tap": "blocks.1:2"}]
    made = recipe(
        tmp_path,
        SYMMETRY,
        PAIRS,
        RDKIT,
        E3NN,
        BONDS,
        array,
        *more,
        without=["rdkit"],
        shuffle=shuffle,
        alignment_end=90,
    )
    assert len(made.active) == 6
    with pytest.raises(InputError, match="featurize"):
        run_recipe(made, tmp_path / "early", progress=False)
    for plan in plans_of(made.active, known, made.cache):
        featurize(plan, known)
    run_recipe(made, tmp_path / "run", progress=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert "valid_loss" in lines[-1]
    latents = build_latents(made.active, made.network, QM9)
    data = Told(TrainingData(known, 0, 300), BatchLatents(open_sources(made.active, known, Path(made.cache))))
    items = data.plan(0)[0]
    batch, noise = data.batch(items, NoiseSource(0, range(len(items)))), NoiseSource(1, range(len(items)))
    objective = build_objective(made, molecule_process(QM9), latents)
    model = MoleculeModel(new_config(QM9, 1.0, known.sizes.tolist(), made.network, "uniform"))
    loss = objective(model, batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask)
    assert set(loss.alignment) == {"symmetry", "pairs", "e3nn", "bond_graph", "arrays", "bins"}
    loss.total.backward()
    assert model.network.blocks[0].exchange.grow.weight.grad.abs().max() > 0


def test_one_latent_follows_the_curriculum_of_its_recipe(tmp_path: Path) -> None:
    latents = build_latents(recipe(tmp_path, SYMMETRY).active, NetworkConfig.model_validate(NETWORK), QM9)
    process = molecule_process(QM9)
    for warmup, b in ((0.0, 1.0), (100.0, 0.25)):
        made = recipe(tmp_path, SYMMETRY, denoising_warmup=warmup)
        objective = build_objective(made, process, latents)
        assert objective.curriculum.b(25) == b
        assert objective.curriculum.a(10**9) == 1.0


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="different names"):
        recipe(tmp_path, SYMMETRY, SYMMETRY)
    with pytest.raises(ValidationError, match="no latent rdkit"):
        recipe(tmp_path, SYMMETRY, without=["rdkit"])
    with pytest.raises(ValidationError, match="shuffle"):
        recipe(tmp_path, SYMMETRY, without=["symmetry"], shuffle=True)
    with pytest.raises(ValidationError, match="pair states"):
        recipe(tmp_path, {**PAIRS, "tap": "blocks.0"})
    with pytest.raises(ValidationError, match="node states"):
        recipe(tmp_path, {**SYMMETRY, "tap": "blocks.0:2"})


@pytest.mark.parametrize(("name", "count"), [("qm9-guided", 3), ("qm9", 1), ("geom_drugs_reed", 1)])
def test_guided_recipes_can_be_read(name: str, count: int) -> None:
    read = read_config(Recipe, RECIPES / f"{name}.toml")
    assert len(read.active) == count
    depths = {int(spec.tap.split(".")[1].partition(":")[0]) for spec in read.active}
    assert max(depths) < read.network.blocks
    if name == "geom_drugs_reed":
        assert (read.active[0].weight, depths) == (0.2, {3})
        assert read.denoising_warmup / read.train.samples == 30 / 200
        assert read.alignment_end is None
    assert len(molecules()) == 12

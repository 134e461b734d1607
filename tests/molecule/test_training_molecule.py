"""Recipes, objectives, and a tiny model that learns a handful of molecules."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.latent import Latent, Representation
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.process import Masked
from reed_core.train import Batch
from reed_core.train.config import read_config
from reed_molecule import training
from reed_molecule.condition import Condition
from reed_molecule.model import ModelConfig, MoleculeModel, new_config
from reed_molecule.molecule import Molecule
from reed_molecule.network import NetworkConfig
from reed_molecule.process import centre, molecule_process
from reed_molecule.recipe import Recipe
from reed_molecule.sample import sample
from reed_molecule.splits import SPLITS
from reed_molecule.stored import About, pack
from reed_molecule.training import Told, build_objective, run_recipe, train, validation_losses
from reed_molecule.vocabulary import QM9, Vocabulary

VOCABULARY: Vocabulary = QM9  # H C N O F
SCALE = 1.7
WATER = ((3, 0, 0), [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]], [(0, 1, 1), (0, 2, 1)])
CARBON_DIOXIDE = ((1, 3, 3), [[0, 0, 0], [1.16, 0, 0], [-1.16, 0, 0]], [(0, 1, 2), (0, 2, 2)])
CYANIDE = ((2, 1, 0), [[0, 0, 0], [1.16, 0, 0], [2.23, 0, 0]], [(0, 1, 3), (1, 2, 1)])
AMMONIA = ((2, 0, 0, 0), [[0, 0, 0.1], [0.94, 0, -0.3], [-0.47, 0.81, -0.3], [-0.47, -0.81, -0.3]], None)
METHANE = (
    (1, 0, 0, 0, 0),
    [[0, 0, 0], [0.63, 0.63, 0.63], [-0.63, -0.63, 0.63], [-0.63, 0.63, -0.63], [0.63, -0.63, -0.63]],
    None,
)
MOLECULES = (WATER, CARBON_DIOXIDE, CYANIDE, AMMONIA, METHANE)


def state(molecules: Sequence[tuple] = MOLECULES) -> tuple[dict[str, torch.Tensor], Condition]:
    b, n = len(molecules), max(len(types) for types, _, _ in molecules)
    x = {
        "coords": torch.zeros(b, n, 3),
        "types": torch.zeros(b, n, dtype=torch.long),
        "charges": torch.ones(b, n, dtype=torch.long),
        "bonds": torch.zeros(b, n, n, dtype=torch.long),
    }
    mask = torch.zeros(b, n, dtype=torch.bool)
    for row, (types, positions, bonds) in enumerate(molecules):
        size = len(types)
        mask[row, :size] = True
        x["types"][row, :size] = torch.tensor(types)
        x["coords"][row, :size] = torch.tensor(positions) / SCALE
        for i, j, order in bonds or [(0, other, 1) for other in range(1, size)]:
            x["bonds"][row, i, j] = x["bonds"][row, j, i] = order
    x["coords"] = centre(x["coords"], mask)
    return x, Condition(mask)


class Handful:
    """Batches of the made molecules; item i is molecule i modulo their number."""

    def __init__(self, size: int = 40, batch: int = 20) -> None:
        self.size, self.batch_size = size, batch

    def plan(self, epoch: int) -> list[list[int]]:
        return [list(range(start, start + self.batch_size)) for start in range(0, self.size, self.batch_size)]

    def batch(self, items: Sequence[int], noise: NoiseSource) -> Batch:
        x_0, told = state([MOLECULES[item % len(MOLECULES)] for item in items])
        return Batch(x_0=x_0, mask=told.masks())


TINY = NetworkConfig(width=32, vectors=8, pairs=16, blocks=2, heads=4, radial=12)
RECIPES = Path(training.__file__).parent / "recipes"


def recipe(samples: int = 200, **settings: object) -> Recipe:
    values = {"data": "a", "train": {"samples": samples, "checkpoint_every": 10**6}, **settings}
    return Recipe.model_validate(values)


def config(network: NetworkConfig = TINY) -> ModelConfig:
    return new_config(VOCABULARY, SCALE, [len(types) for types, _, _ in MOLECULES], network, "uniform")


def test_a_tiny_model_learns_a_handful_of_molecules(tmp_path: Path) -> None:
    settings = {"samples": 6_000, "learning_rate": 4e-3, "ema": 0.98, "checkpoint_every": 10**6}
    made = recipe(train=settings)
    torch.manual_seed(0)
    process, data = molecule_process(VOCABULARY), Told(Handful(200, 20))
    before = validation_losses(MoleculeModel(config()).eval(), process, data, 0)
    model = train(made, config(), Handful(200, 20), Handful(200, 20), tmp_path, progress=False)
    after = validation_losses(model, process, data, 0)
    assert after["valid_loss"] < 0.5 * before["valid_loss"]
    assert all(after[f"valid_{name}"] < 0.7 * before[f"valid_{name}"] for name in ("coords", "types", "bonds"))
    known = Counter(tuple(sorted(types)) for types, _, _ in MOLECULES)
    drawn = sample(model, 40, steps=30, seed=1)
    found = [
        tuple(sorted(types[exists].tolist()))
        for batch in drawn
        for types, exists in zip(batch.state["types"], batch.mask["types"], strict=True)
    ]
    assert sum(formula in known for formula in found) >= 16  # by chance: fewer than 1 in 10


@pytest.mark.parametrize("count", [0, 1, 2])
def test_objectives_by_the_number_of_latents(tmp_path: Path, count: int) -> None:
    latents = [
        Latent(name=f"z{index}", tap=f"network.blocks.{index}", tap_dim=TINY.width, dim=3, level=level)
        for index, level in zip(range(count), ("token", "global"), strict=False)
    ]

    def make(items: list[int], batch: Batch) -> dict[str, Representation]:
        b, n = batch.x_0["types"].shape
        values = {"z0": torch.randn(b, n, 3), "z1": torch.randn(b, 3)}
        return {latent.name: Representation(values[latent.name]) for latent in latents}

    made = recipe(samples=40, denoising_warmup=20, alignment_end=100)
    model = train(
        made, config(), Handful(), Handful(), tmp_path, latents=latents, make=make if latents else None, progress=False
    )
    assert (tmp_path / "weights" / "model.safetensors").is_file()
    objective = build_objective(made, model.process, latents)
    assert isinstance(objective, Objective)
    assert objective.curriculum.b(10) == (0.5 if count else 1.0)
    assert len(objective.latents) == count


def test_latents_need_values(tmp_path: Path) -> None:
    latent = Latent(name="z", tap="network.blocks.0", tap_dim=TINY.width, dim=3)
    with pytest.raises(InputError, match="without their values"):
        train(recipe(), config(), Handful(), Handful(), tmp_path, latents=[latent])


def test_weights_come_back(tmp_path: Path) -> None:
    model = train(recipe(samples=20), config(), Handful(), Handful(), tmp_path, progress=False)
    again = from_pretrained(MoleculeModel, tmp_path / "weights")
    assert again.config == model.config
    assert again.config.sizes == {3: 3, 4: 1, 5: 1}
    x, told = state()
    t = torch.linspace(0.1, 0.9, len(MOLECULES))
    for name, value in model(x, t, told).items():
        torch.testing.assert_close(again(x, t, told)[name], value)


def test_the_loss_of_a_batch_is_equivariant() -> None:
    """Turned noise and turned data give the same loss: written out, as noise belongs to samples and is not turned."""
    torch.manual_seed(0)
    model, (x, told) = MoleculeModel(config()).double().eval(), state()
    process = model.process
    x["coords"] = x["coords"].double()
    at = process.corrupt(x, torch.linspace(0.1, 0.9, 5), NoiseSource(0, range(5)), told.masks())
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    part = at.parts["coords"]
    moved = type(part)(part.x_0 @ turn, part.x_t @ turn, part.t, part.target @ turn, part.mask)
    x_t = {**at.x_t, "coords": moved.x_t}
    again = type(at)(at.x_0, x_t, at.t, at.target, at.mask, parts={**at.parts, "coords": moved})
    expected = process.loss(model(at.x_t, at.t, told), at)
    torch.testing.assert_close(process.loss(model(x_t, at.t, told), again), expected, rtol=1e-9, atol=1e-9)


def prepared(path: Path) -> Path:
    """A file of two made molecules of each kind, of which one is for validation."""
    made = []
    for types, positions, _ in MOLECULES:
        x_0 = state([(types, positions, None)])[0]
        i, j = torch.triu(x_0["bonds"][0]).nonzero().T.numpy()
        rows = np.stack([i, j, x_0["bonds"][0].numpy()[i, j]], 1).astype(np.int64)
        numbers = VOCABULARY.numbers_of(np.array(types, dtype=np.int64))
        made.append(Molecule(numbers, np.array(positions, np.float32), np.zeros(len(types), np.int64), rows))
    whole = pack(made * 2, range(10), About("file", VOCABULARY))
    split = np.array([SPLITS.index("train")] * 5 + [SPLITS.index("valid")] * 5, dtype=whole.split.dtype)
    replace(whole, split=split).write(path)
    return path


def test_a_recipe_runs_on_a_prepared_file(tmp_path: Path) -> None:
    path = prepared(tmp_path / "set.npz")
    made = recipe(samples=15, data=str(path), network=TINY.model_dump(), batch_pairs=60)
    model = run_recipe(made, tmp_path / "run", progress=False)
    assert model.config.sizes == {3: 3, 4: 1, 5: 1}
    assert 0.5 < model.config.scale < 1.5
    assert (tmp_path / "run" / "weights" / "model.safetensors").is_file()
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {"valid_loss", "valid_coords", "valid_types", "valid_charges", "valid_bonds"} <= set(last)
    longer = recipe(samples=30, data=str(path), network=TINY.model_dump(), batch_pairs=60)
    run_recipe(longer, tmp_path / "run", progress=False)
    with pytest.raises(InputError, match="another recipe"):
        run_recipe(recipe(data=str(path), discrete="masked"), tmp_path / "run", progress=False)
    with pytest.raises(InputError):
        run_recipe(recipe(data=str(tmp_path / "absent.npz")), tmp_path / "other", progress=False)


def test_recipes_can_be_read() -> None:
    names = sorted(path.name for path in RECIPES.glob("*.toml"))
    assert {"drugs-small.toml", "qm9-small.toml", "qm9-guided.toml", "qm9.toml", "geom_drugs_reed.toml"} <= set(names)
    for name in names:
        read = read_config(Recipe, RECIPES / name)
        if name in ("qm9.toml", "geom_drugs_reed.toml"):  # for GPUs
            continue
        assert 1_000_000 < sum(p.numel() for p in MoleculeModel(config(read.network)).parameters()) < 4_000_000


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="must divide"):
        NetworkConfig(width=30, heads=4)
    with pytest.raises(ValidationError):
        recipe(weights={"colour": 1.0})
    process = molecule_process(VOCABULARY, "masked", weights={"bonds": 3.0})
    assert process.weights["bonds"] == 3.0
    assert process.fields["types"] == Masked(5, 5, "flat")
    with pytest.raises(ValidationError, match="the network has"):
        ModelConfig(elements=("H", "C"), formal_charges=(0, 1), scale=1.0, sizes={2: 1}, network=TINY)
    with pytest.raises(InputError, match="no training molecules"):
        new_config(VOCABULARY, SCALE, [], TINY, "uniform")

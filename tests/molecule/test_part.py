"""Given parts: what is cut out of a molecule, what the network reads of the rest, and what is said of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from molecule.metric_cases import made
from molecule.molecule_sets import make_set
from pydantic import ValidationError
from reed_core.noise import NoiseSource
from reed_core.objective import Objective
from reed_core.train import Batch
from reed_molecule.completion import complete, kept_in
from reed_molecule.condition import Condition
from reed_molecule.cuts import MOST, blocks_of, random_kept
from reed_molecule.dataset import TrainingData, collate
from reed_molecule.fragment import fragment_of
from reed_molecule.generate import Request, Sizes, load
from reed_molecule.model import MoleculeModel, new_config
from reed_molecule.network import NetworkConfig
from reed_molecule.part import Part
from reed_molecule.process import centre
from reed_molecule.recipe import Recipe
from reed_molecule.training import run_recipe
from reed_molecule.vocabulary import QM9

CUTTABLE = ("CCOC(=O)c1ccccc1", "NCCc1ccoc1", "CC(C)CO", "OCC1CC1")
READS = NetworkConfig(width=16, vectors=4, pairs=8, blocks=2, heads=2, radial=6, self_condition=True, parts=True)
Fields = dict[str, torch.Tensor]


def reader(seed: int = 0) -> MoleculeModel:
    """A random network, in float64, that reads parts; none of its weights is 0."""
    torch.manual_seed(seed)
    net = MoleculeModel(new_config(QM9, 1.4, (9,), READS, "uniform")).double().eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, dtype=torch.float64)
    return net


def some() -> tuple[Fields, Condition]:
    """Two clean molecules, of the first of which a part is given."""
    x, mask = collate([made("CC(=O)N"), made("CO")], QM9)
    x_0 = {**x, "coords": centre(x["coords"].double(), mask["coords"])}
    kept = torch.zeros_like(mask["types"])
    kept[0, [0, 1, 3]] = True
    return x_0, Condition(mask["types"], part=Part.kept(x_0, kept, mask["bonds"]))


def corrupted(net: MoleculeModel, x_0: Fields, told: Condition, t: torch.Tensor) -> Fields:
    return dict(net.process.corrupt(x_0, t, NoiseSource(1, range(2)), told.masks()).x_t)


def test_what_is_known_of_a_kept_part() -> None:
    """Against a loop over pairs."""
    x_0, told = some()
    part, exists = told.part, told.mask
    assert part is not None
    kept, bonds, n = part.known["types"], x_0["bonds"], exists.shape[1]
    for row in range(2):
        closed = [
            bool(kept[row, i]) and not any(bonds[row, i, j] > 0 and not kept[row, j] for j in range(n))
            for i in range(n)
        ]
        for i in range(n):
            for j in range(n):
                both = bool(kept[row, i] and kept[row, j])
                expected = (both or closed[i] or closed[j]) and i != j and bool(exists[row, i] and exists[row, j])
                assert bool(part.known["bonds"][row, i, j]) == expected
    due = part.unknown(told.masks())
    assert torch.equal(due["coords"], exists)
    assert torch.equal(due["types"], exists & ~kept)
    assert not (due["bonds"] & part.known["bonds"]).any()


def test_the_given_part_is_read_clean_where_its_noise_lies() -> None:
    net = reader()
    x_0, told = some()
    x_t, part = corrupted(net, x_0, told, torch.tensor([0.8, 0.8], dtype=torch.float64)), told.part
    assert part is not None
    read, kept = part.read(x_t), part.known["coords"][0]
    torch.testing.assert_close(read["coords"][0, kept].mean(0), x_t["coords"][0, kept].mean(0))
    shape = x_0["coords"][0, kept]
    torch.testing.assert_close(read["coords"][0, kept] - read["coords"][0, kept].mean(0), shape - shape.mean(0))
    assert torch.equal(read["coords"][0, ~kept], x_t["coords"][0, ~kept])
    assert torch.equal(read["types"][0, kept], x_0["types"][0, kept])
    for name in x_t:
        assert torch.equal(read[name][1], x_t[name][1])


def test_noise_inside_the_given_part_changes_nothing() -> None:
    """Only the mean of the given atoms' noise tells something; what else their noise is must not be read."""
    net = reader()
    x_0, told = some()
    assert told.part is not None
    kept, t = told.part.known["coords"], torch.tensor([0.6, 0.6], dtype=torch.float64)
    x_t = corrupted(net, x_0, told, t)
    shaken = torch.randn_like(x_t["coords"])
    shaken = torch.where(kept[..., None], shaken, 0.0)
    mean = shaken.sum(1, keepdim=True) / kept.sum(1)[:, None, None].clamp(min=1)
    shaken = torch.where(kept[..., None], shaken - mean, 0.0)
    other = {**x_t, "coords": x_t["coords"] + shaken, "types": torch.where(kept, 2, x_t["types"])}
    with torch.no_grad():
        one, two = net(x_t, t, told), net(other, t, told)
    for name in ("types", "charges", "bonds"):
        torch.testing.assert_close(one[name], two[name])
    clean = [x["coords"] - t[:, None, None] * said["coords"] for x, said in ((x_t, one), (other, two))]
    torch.testing.assert_close(*clean)


@pytest.mark.parametrize("reads", [True, False])
def test_what_is_said_of_the_given_part_is_what_is_given(reads: bool) -> None:
    net = reader()
    if not reads:
        net.network.marks = None
    x_0, told = some()
    part, t = told.part, torch.tensor([0.5, 0.9], dtype=torch.float64)
    assert part is not None
    x_t = corrupted(net, x_0, told, t)
    with torch.no_grad():
        said = net(x_t, t, told)
    kept = part.known["coords"][0]
    clean, shape = x_t["coords"][0] - t[0] * said["coords"][0], x_0["coords"][0, kept]
    torch.testing.assert_close(clean[kept] - clean[kept].mean(0), shape - shape.mean(0))
    assert said["coords"].sum(1).abs().max() < 1e-9
    for name in ("types", "charges", "bonds"):
        known = part.known[name]
        assert torch.equal(said[name].argmax(-1)[known], x_0[name][known])
        assert said[name].softmax(-1).amax(-1)[known].min() == 1.0


def test_marks_are_silent_at_first_and_learn() -> None:
    torch.manual_seed(0)
    net = MoleculeModel(new_config(QM9, 1.4, (9,), READS, "uniform")).double().train()
    x_0, told = some()
    assert told.part is not None
    objective = Objective(net.process)
    loss = objective(net, x_0, NoiseSource(0, range(2)), c=told, mask=told.part.unknown(told.masks()))
    loss.total.backward()
    marks = net.network.marks
    assert marks is not None
    for parameter in marks.parameters():
        assert not parameter.any()
        assert parameter.grad is not None
        assert parameter.grad.any()


@pytest.mark.parametrize("smiles", CUTTABLE)
def test_what_is_cut_out(smiles: str) -> None:
    """Whole blocks, connected through cut bonds; no ring, no double bond and no hydrogen is cut."""
    molecule = made(smiles)
    mol, heavy = molecule.to_rdkit(), molecule.numbers > 1
    block, edges = blocks_of(molecule)
    seen = set()
    for seed in range(30):
        kept = random_kept(molecule, np.random.default_rng(seed))
        gone = ~kept
        seen.add(tuple(kept.tolist()))
        assert 0 < (gone & heavy).sum() <= MOST * heavy.sum()
        for i, j, _ in molecule.bonds.tolist():
            if kept[i] != kept[j]:
                bond = mol.GetBondBetweenAtoms(i, j)
                assert heavy[i]
                assert heavy[j]
                assert not bond.IsInRing()
                assert bond.GetBondTypeAsDouble() == 1.0
        blocks = {int(one) for one in block[gone]}
        reached, todo = set(), [min(blocks)]
        while todo:
            at = todo.pop()
            reached.add(at)
            near = [int(b if a == at else a) for a, b in edges.tolist() if at in (a, b)]
            todo += [one for one in near if one in blocks - reached]
        assert reached == blocks
    assert len(seen) > 1


def test_a_molecule_without_such_bonds_is_not_cut() -> None:
    for smiles in ("c1ccccc1", "C#N", "C"):
        assert not random_kept(made(smiles), np.random.default_rng(0)).any()


def test_batches_with_parts(tmp_path: Path) -> None:
    """A molecule's part is its own, whatever its batch; a share of 0 tells nothing."""
    known = make_set(tmp_path)
    data = TrainingData(known, 0, 10_000, 1.4, parts=1.0)
    items = list(range(len(known)))

    def part(batch: Batch) -> Part:
        assert isinstance(batch.c, Condition)
        assert batch.c.part is not None
        return batch.c.part

    whole = data.batch(items, NoiseSource(3, items))
    given = part(whole).known["types"]
    assert given.any()
    for item in items:
        alone, size = part(data.batch([item], NoiseSource(3, [item]))).known["types"][0], len(known[item])
        assert torch.equal(given[item, :size], alone)
        assert not given[item, size:].any()
    assert isinstance(whole.mask, dict)
    assert not (whole.mask["types"] & given).any()
    assert TrainingData(known, 0, 10_000, 1.4).batch(items, NoiseSource(3, items)).c is None


def test_a_run_with_parts(tmp_path: Path) -> None:
    """From weights that read none to some that do, and to a molecule around a fragment."""
    make_set(tmp_path)
    sizes = READS.model_copy(update={"parts": False}).model_dump()
    settings = {"data": str(tmp_path / "set.reed"), "network": sizes, "batch_pairs": 300}
    train = {"samples": 8, "checkpoint_every": 10**6}
    whole = run_recipe(Recipe.model_validate({**settings, "train": train}), tmp_path / "whole", progress=False)
    assert whole.network.marks is None
    init = {"init": str(tmp_path / "whole" / "weights"), "parts": 1.0}
    reads = run_recipe(Recipe.model_validate({**settings, **init, "train": train}), tmp_path / "reads", progress=False)
    assert reads.network.marks is not None
    generator = load(tmp_path / "reads" / "weights")
    assert generator.model.config.network.parts
    fragment = fragment_of(made("CC=O").to_rdkit(), [0, 3, 4, 5], "methyl")
    drawn = complete(generator, fragment, Request(2, steps=3), add=Sizes({3: 1}))
    kept = [kept_in(sample, fragment) for sample in drawn.samples]
    assert all(one is not None and one.rmsd == 0.0 for one in kept)


def test_aligned_noise_and_parts_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="set one of the two"):
        Recipe.model_validate({"data": "a", "parts": 0.5, "alignment": "rotation", "train": {"samples": 1}})

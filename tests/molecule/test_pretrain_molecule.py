"""Pretraining: encoders learn, resume exactly, and are taken up by a recipe; symmetry of the loss."""

import json
from pathlib import Path

import pytest
import torch
from molecule.molecule_sets import make_set
from reed_core.errors import InputError
from reed_core.hub import from_pretrained
from reed_core.noise import NoiseSource
from reed_molecule.dataset import MoleculeSet, TrainingData
from reed_molecule.encoders import BondGraphEncoder, EquivariantEncoder
from reed_molecule.latents import featurize, plan_of
from reed_molecule.latents.spec import BondGraphSpec, EquivariantSpec
from reed_molecule.pretrain import Disturbed, PretrainRecipe, new_encoder, pretrain, pretraining_process
from reed_molecule.vocabulary import QM9

LIBRARY = {"e3nn": "e3nn", "bond_graph": "torch_geometric"}
KINDS = {"e3nn": (EquivariantEncoder, EquivariantSpec), "bond_graph": (BondGraphEncoder, BondGraphSpec)}


def recipe(folder: Path, kind: str, samples: int = 18, **train: object) -> PretrainRecipe:
    pytest.importorskip(LIBRARY[kind])
    sizes = {"width": 12, "layers": 2, "batch_pairs": 600, "depth": 0.3}
    values = {"kind": kind, "data": str(folder / "set.reed"), **sizes}
    return PretrainRecipe.model_validate(
        {**values, "train": {"samples": samples, "checkpoint_every": 400, "learning_rate": 1e-2, "ema": 0.9, **train}}
    )


def last_line(folder: Path) -> dict[str, float]:
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize("kind", LIBRARY)
def test_an_encoder_learns_and_is_taken_up(tmp_path: Path, kind: str) -> None:
    known = make_set(tmp_path)
    short, long = (pretrain(recipe(tmp_path, kind, n), tmp_path / str(n), progress=False) for n in (9, 1350))
    before, after = last_line(tmp_path / "9"), last_line(tmp_path / "1350")
    assert after["valid_types"] < 0.7 * before["valid_types"]
    if kind == "e3nn":
        assert after["valid_coords"] < 0.9 * before["valid_still"]
    module, spec = KINDS[kind]
    assert isinstance(long, module)
    again = from_pretrained(module, tmp_path / "1350" / "weights")
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, long.state_dict()[name])
    plans = [
        plan_of(spec(kind=kind, tap="blocks.0", weight=1.0, weights=str(tmp_path / run / "weights")), known, tmp_path)
        for run in ("9", "1350")
    ]
    assert plans[0].folder != plans[1].folder
    cache = featurize(plans[1], known)
    assert cache is not None
    assert cache.gather([0, 3]).z.shape[-1] == long.config.dim
    assert short.config == long.config


def test_a_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    make_set(tmp_path)
    whole = pretrain(recipe(tmp_path, "bond_graph", 27, decay=0.0), tmp_path / "a", progress=False)
    pretrain(recipe(tmp_path, "bond_graph", 9, decay=0.0), tmp_path / "b", progress=False)
    parts = pretrain(recipe(tmp_path, "bond_graph", 27, decay=0.0), tmp_path / "b", progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, parts.state_dict()[name])
    with pytest.raises(InputError, match="another recipe"):
        pretrain(recipe(tmp_path, "bond_graph", 27, seed=4), tmp_path / "b", progress=False)


def test_the_loss_does_not_change_when_a_disturbed_molecule_is_turned(tmp_path: Path) -> None:
    made = recipe(tmp_path, "e3nn")
    known = make_set(tmp_path)
    encoder, process = new_encoder(made, QM9).double().eval(), pretraining_process("e3nn", 5, 0.3)
    data = Disturbed(TrainingData(known, 0, 10**6, rotate=False), "e3nn")
    batch = data.batch(range(6), NoiseSource(0, range(6)))
    x_0 = {**batch.x_0, "coords": batch.x_0["coords"].double()}
    t = torch.linspace(0.05, 0.3, 6, dtype=torch.float64)
    at = process.corrupt(x_0, t, NoiseSource(1, range(6)), batch.mask)
    part = at.parts["coords"]
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    plain = encoder(at.x_t, t, batch.c)
    again = encoder({**at.x_t, "coords": part.x_t @ turn}, t, batch.c)
    torch.testing.assert_close(again["coords"], plain["coords"] @ turn, rtol=1e-6, atol=1e-6)
    error = (plain["coords"] - part.target).square().sum()
    torch.testing.assert_close((again["coords"] - part.target @ turn).square().sum(), error, rtol=1e-6, atol=1e-6)


def test_times_stop_at_the_depth_and_hide_few_atoms(tmp_path: Path) -> None:
    known = make_set(tmp_path)
    process = pretraining_process("bond_graph", 5, 0.2)
    noise = NoiseSource(0, range(400))
    t = process.sample_time(noise)
    assert 0.15 < float(t.max()) < 0.2
    assert float(t.min()) >= 0.001
    data = Disturbed(TrainingData(known, 0, 10**6), "bond_graph")
    batch = data.batch([0] * 400, noise)
    at = process.corrupt(batch.x_0, t, noise, batch.mask)
    hidden = (at.x_t["types"] == 5) & batch.mask["types"]
    assert 0.07 < float(hidden.float().sum() / batch.mask["types"].sum()) < 0.13
    assert set(batch.x_0) == {"types"}


def test_data_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no prepared set"):
        pretrain(recipe(tmp_path, "bond_graph"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    make_set(tmp_path)
    assert len(MoleculeSet.read(tmp_path / "set.reed", "valid")) == 3

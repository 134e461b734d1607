import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from made_structures import helix
from reed_core.errors import InputError
from reed_core.hub import save_pretrained
from reed_core.noise import NoiseSource
from reed_core.train.config import read_config
from reed_protein.dataset import ChainSet, TrainingData, collate_tokens
from reed_protein.encoders.tables import CLASSES, blosum_rows, residue_classes
from reed_protein.evaluation import batches, evaluate
from reed_protein.features import nearest_neighbours
from reed_protein.latents import make_latents, open_sources
from reed_protein.network import UNKNOWN_TOKEN, InverseFolding
from reed_protein.recipe import Recipe
from reed_protein.training import build_objective, run_recipe, start
from safetensors.torch import load_file

RECIPES = Path(__file__).parents[2] / "packages/reed-protein/src/reed_protein/recipes"

CONFIG = """
train_set = "chains.npz"
valid_set = "chains.npz"
batch_residues = 90
denoising_warmup = 20
alignment_end = 60
[network]
width = 16
neighbours = 8
encoder_layers = 1
edge_updates = 1
decoder_layers = 2
[[latents]]
kind = "identity"
tap = "encoder.0"
weight = 0.5
[[latents]]
kind = "environment"
tap = "decoder.0"
weight = 0.5
[[latents]]
kind = "contact"
tap = "decoder.1.message"
weight = 0.2
[train]
samples = 100
seed = 5
learning_rate = 2e-3
checkpoint_every = 7
log_every = 1
"""


@pytest.fixture
def chains(tmp_path: Path) -> Path:
    """Ten short chains in the layout of the data set; the third has an unknown residue."""
    structures = [helix(18 + 3 * k, seed=k) for k in range(10)]
    sequences = [structure.sequence for structure in structures]
    sequences[2] = "X" + sequences[2][1:]
    np.savez(
        tmp_path / "chains.npz",
        coords=np.concatenate([np.round(s.coords / 0.005) for s in structures]).astype(np.int16),
        scale=np.float32(0.005),
        offsets=np.cumsum([0, *map(len, structures)]),
        resnum=np.concatenate([s.residue_numbers for s in structures]).astype(np.int16),
        ids=np.array([f"h{k}" for k in range(10)]),
        seqs=np.array(sequences),
    )
    (tmp_path / "recipe.toml").write_text(CONFIG)
    return tmp_path


def read(folder: Path, *overrides: str) -> Recipe:
    return read_config(Recipe, folder / "recipe.toml", overrides)


def test_the_set_reads_back_what_was_written(chains: Path) -> None:
    loaded = ChainSet.read(chains / "chains.npz")
    assert len(loaded) == 10
    np.testing.assert_allclose(loaded.arrays[4].coords, helix(30, seed=4).coords, atol=0.003)
    assert loaded.tokens[2][0] == UNKNOWN_TOKEN


@pytest.mark.parametrize("content", [b"", b"not an archive", None])
def test_a_bad_set_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "set.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        ChainSet.read(path)
    assert "\n" not in str(caught.value)


def test_a_plan_holds_every_chain_once_within_the_budget(chains: Path) -> None:
    loaded = ChainSet.read(chains / "chains.npz")
    data = TrainingData(loaded, seed=1, residues=90, jitter=0.1)
    for epoch in range(3):
        plan = data.plan(epoch)
        assert sorted(item for batch in plan for item in batch) == list(range(10))
        assert all(max(len(loaded.tokens[i]) for i in batch) * len(batch) <= 90 for batch in plan)
        assert plan == data.plan(epoch)
    assert data.plan(0) != data.plan(1)


def test_a_batch_scores_known_residues_alone_and_jitters_them(chains: Path) -> None:
    loaded = ChainSet.read(chains / "chains.npz")
    data = TrainingData(loaded, seed=1, residues=90, jitter=0.1)
    batch = data.batch([2, 0], NoiseSource(0, [0, 1]))
    assert batch.mask is not None
    assert not batch.mask[0, 0]
    assert batch.mask.sum(1).tolist() == [23, 18]
    moved = batch.c.coords[0, :24] - torch.from_numpy(loaded.arrays[2].coords)
    assert 0.07 < moved.std().item() < 0.13
    assert batch.c.coords[1, 18:].abs().max() == 0
    alone = data.batch([0], NoiseSource(0, [1]))
    torch.testing.assert_close(alone.c.coords[0], batch.c.coords[1, :18])


def test_latents_follow_their_definition(chains: Path) -> None:
    loaded = ChainSet.read(chains / "chains.npz")
    data = TrainingData(loaded, 0, 90, 0.1, make_latents(open_sources(read(chains).latents, loaded, chains, 6)))
    batch = data.batch([2, 0], NoiseSource(0, [0, 1]))
    assert callable(batch.z)
    z = batch.z()
    tokens, mask = batch.x_0, batch.c.mask
    neighbours, edge_mask = nearest_neighbours(batch.c.coords[:, :, 1], mask, 6)
    flat = tokens.flatten()
    group = {letter: k for k, members in enumerate(CLASSES) for letter in members}
    of_token = [group[letter] for letter in "ACDEFGHIKLMNPQRSTVWY"]
    for b in range(2):
        for i in range(tokens.shape[1]):
            known = bool(mask[b, i]) and tokens[b, i] < 20
            assert z["identity"].z[b, i] == (tokens[b, i] if known else -1)
            assert z["identity"].mask is not None
            assert bool(z["identity"].mask[b, i]) == known
            if not known:
                continue
            rows = []
            for slot in range(6):
                other = int(flat[neighbours[b, i, slot]])
                joined = bool(edge_mask[b, i, slot]) and other < 20
                expected = of_token[tokens[b, i]] * 6 + of_token[other] if joined else -1
                assert z["contact"].z[b, i, slot] == expected
                rows += [blosum_rows()[other]] if joined else []
            expected_row = torch.cat([blosum_rows()[tokens[b, i]], torch.stack(rows).mean(0)])
            torch.testing.assert_close(z["environment"].z[b, i], expected_row)


def test_classes_cover_the_twenty_once() -> None:
    assert sorted("".join(CLASSES)) == sorted("ACDEFGHIKLMNPQRSTVWY")
    assert residue_classes()[-1] == -1
    rows = blosum_rows()
    torch.testing.assert_close((rows[:20] @ rows[:20].T).diagonal() > 0, torch.ones(20, dtype=torch.bool))


@pytest.mark.parametrize("scope", ["loss", "learning_rate"])
def test_a_recipe_says_what_its_curriculum_scales(chains: Path, scope: Literal["loss", "learning_rate"]) -> None:
    recipe = read(chains).model_copy(update={"curriculum_scope": scope, "denoising_warmup": 100.0})
    curriculum = build_objective(recipe).curriculum
    assert (curriculum.rate(25.0, "denoising") == 1.0) == (scope == "loss")


def test_a_latent_of_a_padded_batch_is_that_of_each_chain(chains: Path) -> None:
    recipe = read(chains)
    loaded = ChainSet.read(chains / "chains.npz")
    torch.manual_seed(0)
    network = InverseFolding(recipe.network).eval()
    objective = build_objective(recipe)
    sources = open_sources(recipe.active, loaded, chains, recipe.network.neighbours)
    data = TrainingData(loaded, 0, 90, 0.0, make_latents(sources))

    def losses(items: list[int], positions: list[int]) -> dict[str, torch.Tensor]:
        batch = data.batch(items, NoiseSource(0, positions))
        noise = NoiseSource(0, positions)
        loss = objective(network, batch.x_0, noise, z=batch.z, c=batch.c, mask=batch.mask, weight=batch.weight, n=30.0)
        return {"denoising": loss.denoising, **loss.alignment}

    together = losses([2, 9, 0], [0, 1, 2])
    for row, item in enumerate([2, 9, 0]):
        for name, value in losses([item], [row]).items():
            torch.testing.assert_close(value[0], together[name][row], atol=1e-5, rtol=1e-5)


def test_training_lowers_the_loss_and_leaves_weights(chains: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REED_DATA", str(chains))
    run_recipe(read(chains, "train.samples=300", "train.evaluate_every=150"), chains / "run", progress=False)
    lines = [json.loads(line) for line in (chains / "run/log.jsonl").read_text().splitlines()]
    losses = [line["denoising"] for line in lines if "denoising" in line]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert sum("median_recovery" in line for line in lines) == 2
    assert "identity" in lines[0]
    assert "identity" not in lines[-2], "alignment has ended: it must not be computed"
    config = json.loads((chains / "run/config.json").read_text())
    assert Recipe.model_validate(config) == read(chains, "train.samples=300", "train.evaluate_every=150")


def test_another_recipe_in_the_same_folder_is_refused(chains: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REED_DATA", str(chains))
    run_recipe(read(chains, "train.samples=20"), chains / "run", progress=False)
    with pytest.raises(InputError, match="another recipe"):
        run_recipe(read(chains, "jitter=0.2"), chains / "run", progress=False)


def command(chains: Path, name: str) -> list[str]:
    arguments = ["train", str(chains / "recipe.toml"), "--out", str(chains / name), "--threads", "1"]
    return [sys.executable, "-c", "from reed_protein.cli import main; main()", *arguments]


def test_killed_and_resumed_a_run_ends_with_the_same_bits(chains: Path) -> None:
    environment = {**os.environ, "REED_DATA": str(chains)}
    subprocess.run(command(chains, "whole"), env=environment, check=True, capture_output=True)
    process = subprocess.Popen(
        command(chains, "killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoints = chains / "killed/checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("[0-9]*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(checkpoints.glob("[0-9]*")), "it was killed before its first checkpoint"
    assert not (chains / "killed/weights").exists(), "the run ended before it could be killed"
    subprocess.run(command(chains, "killed"), env=environment, check=True, capture_output=True)
    whole = load_file(chains / "whole/weights/model.safetensors")
    resumed = load_file(chains / "killed/weights/model.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_evaluation_equals_a_loop_over_chains(chains: Path, network: InverseFolding) -> None:
    loaded = ChainSet.read(chains / "chains.npz")
    found = evaluate(network, loaded, temperature=1.0, steps=5, seed=2)
    natives = collate_tokens(loaded.tokens)
    assert natives.shape == (10, 45)
    assert found.median_recovery == pytest.approx(np.median(found.recovery))
    lengths = np.array([int((t < UNKNOWN_TOKEN).sum()) for t in loaded.tokens])
    assert found.pooled_recovery == pytest.approx((np.array(found.recovery) * lengths).sum() / lengths.sum())
    one = ChainSet(loaded.ids[:1], loaded.arrays[:1], loaded.tokens[:1])
    assert evaluate(network, one, temperature=1.0, steps=5, seed=2).recovery[0] == pytest.approx(found.recovery[0])


def test_evaluation_batches_hold_every_chain_once() -> None:
    lengths = [900, 30, 5000, 400, 401, 30]
    made = batches(lengths)
    assert sorted(item for batch in made for item in batch) == list(range(6))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 4000 for batch in made)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_valid_and_their_taps_exist(path: Path) -> None:
    recipe = read_config(Recipe, path)
    modules = dict(InverseFolding(recipe.network).named_modules())
    assert all(item.tap in modules for item in recipe.latents)


def test_shipped_recipes_exist() -> None:
    assert {path.stem for path in RECIPES.glob("*.toml")} == {
        "reed-protein-small",
        "reed-protein-guided",
        "reed-protein-paper",
    }


def test_the_paper_recipe_has_three_places() -> None:
    recipe = read_config(Recipe, RECIPES / "reed-protein-paper.toml")
    objective = build_objective(recipe)
    assert {(item.name, item.tap, item.level, item.dim) for item in objective.latents} == {
        ("structure", "encoder.2", "token", 768),
        ("single", "decoder.1", "token", 384),
        ("pair", "decoder.1.message", "pair", 128),
    }
    epoch = 23079.0
    assert objective.curriculum.b(0.0) == 0.0
    assert objective.curriculum.b(50 * epoch) == 1.0
    assert objective.curriculum.a(100 * epoch) == pytest.approx(0.5)
    assert objective.curriculum.a(200 * epoch) == 0.0


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (('without=["nobody"]',), "no latent nobody"),
        (("latents=[]", "shuffle=true"), "control of latents"),
        (
            ('latents=[{"kind":"identity","tap":"encoder.0","weight":1},{"kind":"identity","tap":"a","weight":1}]',),
            "name",
        ),
        (('latents=[{"kind":"magic","tap":"encoder.0","weight":1}]',), "magic|kind"),
    ],
)
def test_a_recipe_that_means_nothing_is_one_line(chains: Path, overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        read(chains, *overrides)
    assert "\n" not in str(caught.value)


def test_weights_are_taken_over_where_they_fit(chains: Path) -> None:
    recipe = read(chains)
    torch.manual_seed(99)
    save_pretrained(InverseFolding(recipe.network), chains / "given")
    given = load_file(chains / "given/model.safetensors")
    same = start(recipe.model_copy(update={"init": str(chains / "given")}))
    assert same.random == ()
    assert all(torch.equal(value, given[name]) for name, value in same.network.state_dict().items())
    deeper = read(chains, "network.decoder_layers=3").model_copy(update={"init": str(chains / "given")})
    grown = start(deeper)
    assert grown.random
    assert all(name.startswith("decoder.2.") for name in grown.random)
    fresh = start(read(chains, "network.decoder_layers=3")).network.state_dict()
    for name, value in grown.network.state_dict().items():
        assert torch.equal(value, fresh[name] if name in grown.random else given[name])
    assert set(start(recipe).random) == set(given)


def test_train_says_what_is_reinitialised(chains: Path) -> None:
    torch.manual_seed(99)
    save_pretrained(InverseFolding(read(chains).network), chains / "given")
    arguments = [*command(chains, "grown"), "--init", str(chains / "given")]
    arguments += ["--set", "network.decoder_layers=3", "--set", "train.samples=10"]
    environment = {**os.environ, "REED_DATA": str(chains)}
    done = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    said = next(line for line in done.stderr.splitlines() if "reinitialised" in line)
    assert "decoder.2.outer.weight" in said
    assert "decoder.1" not in said
    assert json.loads((chains / "grown/config.json").read_text())["init"] == str(chains / "given")


def test_the_bound_table_follows_the_figures(chains: Path) -> None:
    torch.manual_seed(99)
    save_pretrained(InverseFolding(read(chains).network), chains / "given")
    arguments = ["evaluate", str(chains / "chains.npz"), "--weights", str(chains / "given"), "--steps", "2"]
    run = [sys.executable, "-c", "from reed_protein.cli import main; main()", *arguments, "--device", "cpu"]
    plain = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    bound = subprocess.run([*run, "--bound"], check=True, capture_output=True, text=True).stdout
    assert bound.startswith(plain)
    assert "total, bits/dim" in bound
    assert "total, bits/dim" not in plain

"""`train --dry-run` and `featurize --dry-run` leave no trace, and what they promise is what is then written."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_chains import helices
from reed_core.train.config import read_config
from reed_protein.cli_featurize import featurize
from reed_protein.cli_train import train
from reed_protein.dataset import ChainSet
from reed_protein.dry_run_train import training_estimate, unknown_to_weights
from reed_protein.latents import plan_of
from reed_protein.latents.spec import EsmSpec
from reed_protein.recipe import Recipe, open_chains
from reed_protein.training import run_recipe

LENGTHS = (18, 24, 30, 21, 33, 27, 40, 19)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    chains = helices(*LENGTHS)
    np.savez(
        tmp_path / "chains.npz",
        coords=np.concatenate([np.round(arrays.coords / 0.005) for arrays in chains.arrays]).astype(np.int16),
        scale=np.float32(0.005),
        offsets=np.cumsum([0, *LENGTHS]),
        resnum=np.concatenate([arrays.position + 1 for arrays in chains.arrays]).astype(np.int16),
        ids=np.array(chains.ids),
        seqs=np.array(["".join("ACDEFGHIKLMNPQRSTVWYX"[token] for token in tokens) for tokens in chains.tokens]),
    )
    teacher = {"kind": "teacher", "tap": "decoder.1", "weight": 0.5, "format": "int8"}
    values = {
        "train_set": str(tmp_path / "chains.npz"),
        "valid_set": str(tmp_path / "chains.npz"),
        "batch_residues": 70,
        "cache": str(tmp_path / "cache"),
        "network": {"width": 48, "neighbours": 8, "encoder_layers": 1, "edge_updates": 1, "decoder_layers": 2},
        "latents": [teacher, {**teacher, "name": "pairs", "read": "decoder.1.message", "tap": "decoder.1.message"}],
        "train": {"samples": 40, "log_every": 1, "checkpoint_every": 10},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    return tmp_path / "recipe.json"


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_dry_runs_leave_nothing_and_keep_their_word(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(recipe.parent.rglob("*"))
    run = recipe.parent / "run"
    train(recipe, run, init="bundled", dry_run=True, device="cpu")
    said = capsys.readouterr()
    assert "to be written first, by reed-protein featurize" in said.out
    assert "residues, padding included" in said.out
    assert "reinitialised: " in said.err
    assert re.search(r"settings that change: .*neighbours \(\d+ there, 8 here\)", said.err)
    featurize(recipe, dry_run=True, device="cpu", shard="1/2")
    said = capsys.readouterr()
    assert said.out.count("to be written)") == 2
    assert said.out.count("s per sample") == 2
    assert sorted(recipe.parent.rglob("*")) == before

    settings = read_config(Recipe, recipe)
    plans = [plan_of(spec, open_chains(settings.train_set), Path(settings.cache), 8) for spec in settings.latents]  # type: ignore[arg-type]
    featurize(recipe, device="cpu")
    assert "mean cosine" in capsys.readouterr().err
    assert sum(plan.bytes for plan in plans) == pytest.approx(total(recipe.parent / "cache"), rel=0.1)
    featurize(recipe, dry_run=True, device="cpu")
    assert capsys.readouterr().out.count("(complete)") == 2

    found = training_estimate(settings, run)
    assert [part.note for part in found.disk if not part.written] == ["there", "there"]
    run_recipe(settings, run, progress=False)
    assert found.written == pytest.approx(total(run), rel=0.1)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert found.steps == max(line["step"] for line in lines)


def test_an_encoder_that_would_be_downloaded_is_not(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ['latents=[{"kind":"esm","tap":"encoder.0","weight":1,"model":"esm2_t48_15B_UR50D"}]']
    spec = EsmSpec(kind="esm", tap="a", weight=1, model="esm2_t48_15B_UR50D")
    assert not spec.within_reach(), "a 30 GB model is in the hub folder of this machine"
    featurize(recipe, set_=overrides, dry_run=True, device="cpu")
    out = capsys.readouterr().out
    assert "would be downloaded" in out
    assert re.search(r"width 5120, float16, 1 shards, \d", out)


def test_what_the_weights_do_not_know_is_counted() -> None:
    chains = helices(20, 30)
    known = unknown_to_weights(chains)
    tokens = tuple(tokens.clone() for tokens in chains.tokens)
    before = sum(int((one == 20).sum()) for one in tokens)
    for place in (2, 3):
        tokens[1][place] = 20
    (line,) = unknown_to_weights(ChainSet(chains.ids, chains.arrays, tokens))
    after = sum(int((one == 20).sum()) for one in tokens)
    assert line.startswith(f"{after} of 50 residues")
    assert bool(known) == bool(before)

"""Latents of a recipe: caches and their refusals, pairs on jittered graphs, the shuffled control, many at once."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from made_chains import helices
from reed_core.errors import InputError
from reed_core.hub import save_pretrained
from reed_core.latent import Representation
from reed_core.noise import NoiseSource
from reed_core.train.config import read_config
from reed_protein.dataset import ChainSet, CleanChains, TrainingData
from reed_protein.latents import (
    Shuffled,
    build_latents,
    featurize,
    make_latents,
    open_sources,
    partners,
    plan_of,
    transplant,
)
from reed_protein.network import InverseFolding
from reed_protein.recipe import Recipe
from reed_protein.training import run_recipe

LENGTHS = (18, 24, 30, 21, 33, 27)
NETWORK = {"width": 16, "neighbours": 8, "encoder_layers": 1, "edge_updates": 1, "decoder_layers": 2}


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Chains as .npz, arrays and 3Di states of each, weights of a teacher, and a recipe with every kind of latent."""
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
    generator = np.random.default_rng(0)
    for name, length in zip(chains.ids, LENGTHS, strict=True):
        np.savez(
            tmp_path / f"af3-{name}.npz",
            single=generator.normal(size=(length, 12)).astype(np.float16),
            pair=generator.normal(size=(length, length, 6)).astype(np.float16),
        )
    (tmp_path / "states.fa").write_text("".join(f">h{k}\n{'D' * length}\n" for k, length in enumerate(LENGTHS)))
    torch.manual_seed(1)
    save_pretrained(InverseFolding(InverseFolding.Config(**{**NETWORK, "width": 24})), tmp_path / "teacher")
    values = {
        "train_set": str(tmp_path / "chains.npz"),
        "valid_set": str(tmp_path / "chains.npz"),
        "batch_residues": 70,
        "cache": str(tmp_path / "cache"),
        "network": NETWORK,
        "latents": [
            {"kind": "identity", "tap": "encoder.0", "weight": 0.5},
            {"kind": "environment", "tap": "decoder.0", "weight": 0.5},
            {"kind": "contact", "tap": "decoder.1.message", "weight": 0.5},
            {"kind": "3di", "tap": "encoder.0", "weight": 0.5, "path": str(tmp_path / "states.fa")},
            arrays(tmp_path, "single", "token", 12, "decoder.0"),
            arrays(tmp_path, "pair", "pair", 6, "decoder.0.message"),
            {
                "kind": "teacher",
                "tap": "decoder.1",
                "weight": 0.5,
                "weights": str(tmp_path / "teacher"),
                "read": "decoder.1",
            },
            {
                "kind": "teacher",
                "name": "late",
                "tap": "decoder.1.message",
                "weight": 0.5,
                "head": "gaussian",
                "weights": str(tmp_path / "teacher"),
                "read": "decoder.1.message",
            },
        ],
        "train": {"samples": 30, "seed": 3, "log_every": 1, "checkpoint_every": 10},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    return tmp_path


def arrays(folder: Path, key: str, shape: str, dim: int, tap: str) -> dict[str, Any]:
    pattern = str(folder / "af3-{id}.npz")
    return {
        "kind": "arrays",
        "name": key,
        "key": key,
        "shape": shape,
        "dim": dim,
        "tap": tap,
        "weight": 0.5,
        "pattern": pattern,
    }


def read(folder: Path, *overrides: str) -> Recipe:
    return read_config(Recipe, folder / "recipe.json", overrides)


def write_all(recipe: Recipe, chains: ChainSet) -> None:
    for spec in recipe.active:
        if spec.stored:
            featurize(plan_of(spec, chains, Path(recipe.cache), recipe.network.neighbours), chains)


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


PROGRAM = """
import contextlib, io, json, sys
from reed_protein.cli import main
done = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["reed-protein", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as left:
            code = left.code or 0
    done.append([code, out.getvalue(), err.getvalue()])
json.dump(done, sys.stdout)
"""


def commands(*lists: list[str]) -> list[Done]:
    """Runs the program with each list of arguments, all in one process."""
    run = [sys.executable, "-c", PROGRAM, json.dumps(lists)]
    found = subprocess.run(run, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert found.returncode == 0, found.stderr
    return [Done(*one) for one in json.loads(found.stdout)]


def test_any_number_of_latents_train_together_at_their_own_depths(work: Path) -> None:
    recipe = read(work)
    write_all(recipe, ChainSet.read(work / "chains.npz"))
    run_recipe(recipe, work / "run", progress=False)
    first = json.loads((work / "run/log.jsonl").read_text().splitlines()[0])
    names = [spec.name for spec in recipe.latents]
    assert len(names) == 8
    assert all(np.isfinite(first[name]) for name in names)
    dims = {
        latent.name: (latent.tap, latent.level, latent.dim) for latent in build_latents(recipe.active, recipe.network)
    }
    assert dims["teacher"] == ("decoder.1", "token", 24)
    assert dims["late"] == ("decoder.1.message", "pair", 24)
    assert dims["pair"] == ("decoder.0.message", "pair", 6)


def test_stored_pairs_lie_on_the_edges_of_the_jittered_graph(work: Path) -> None:
    recipe = read(work, 'without=["3di"]')
    chains = ChainSet.read(work / "chains.npz")
    write_all(recipe, chains)
    make = make_latents(open_sources(recipe.active, chains, work / "cache", 8))
    data = TrainingData(chains, 0, 200, 0.3, make)
    batch = data.batch([2, 0], NoiseSource(0, [0, 1]))
    assert callable(batch.z)
    z = batch.z()
    from reed_protein.encoders.graph import edges_of

    edges = edges_of(batch.c, 8)
    for row, item in enumerate((2, 0)):
        with np.load(work / f"af3-h{item}.npz") as whole:
            pair, single = torch.from_numpy(whole["pair"]), torch.from_numpy(whole["single"])
        length = LENGTHS[item]
        assert z["pair"].mask is not None
        known = z["pair"].mask[row, :length]
        assert known.float().mean() > 0.99
        rows = torch.arange(length)[:, None]
        expected = pair[rows, edges.neighbours[row, :length]]
        assert torch.equal(z["pair"].z[row, :length][known], expected[known])
        assert not bool(z["pair"].mask[row, length:].any())
        assert torch.equal(z["single"].z[row, :length], single)


@pytest.mark.parametrize("seed", [0, 1])
def test_partners_are_others_of_like_length_and_another_cluster(seed: int) -> None:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(40, 400, size=500)
    groups = generator.integers(0, 120, size=500)
    lengths = lengths[np.searchsorted(np.unique(groups), groups)]  # members of a cluster are equally long
    found = partners(lengths, groups, seed)
    assert sorted(found) == list(range(500))
    assert not (found == np.arange(500)).any()
    assert not (groups[found] == groups).any()
    assert np.abs(lengths[found] - lengths).max() < 80
    assert (partners(lengths, groups, seed) == found).all()
    assert (partners(lengths, None, seed + 1) != partners(lengths, None, seed)).any()


@pytest.mark.parametrize("groups", [None, np.zeros(5, dtype=np.int64), np.array([0, 0, 0, 0, 1])])
def test_no_chain_keeps_its_own_even_where_one_cluster_has_most(groups: Any) -> None:
    found = partners(np.full(5, 9), groups, 0)
    assert sorted(found) == list(range(5))
    assert not (found == np.arange(5)).any()
    with pytest.raises(InputError, match="at least two"):
        partners(np.array([3]), None, 0)


def test_transplanted_rows_repeat_and_never_leave_the_chain() -> None:
    ours, theirs = torch.arange(7)[None] < 5, torch.arange(4)[None] < 3
    token = transplant(Representation(torch.arange(4)[None, :, None].float()), theirs, ours)
    assert token.z[0, :5, 0].tolist() == [0, 1, 2, 0, 1]
    assert token.mask is not None
    assert token.mask[0].tolist() == [True] * 5 + [False] * 2
    edges = theirs[..., None] & (torch.arange(6) < 3)
    pair = transplant(Representation(torch.zeros(1, 4, 6), edges), theirs, ours)
    assert pair.mask is not None
    assert pair.mask.sum((1, 2)).tolist() == [15]


@pytest.mark.parametrize("batch", [[0, 1, 2], [4, 3]])
def test_the_shuffled_control_gives_another_chains_z(work: Path, batch: list[int]) -> None:
    """Of every kind of latent; row i is row i of the partner."""
    recipe = read(work)
    chains = ChainSet.read(work / "chains.npz")
    write_all(recipe, chains)
    own = open_sources(recipe.active, chains, work / "cache", 8)
    other = open_sources(recipe.active, chains, work / "cache", 8, shuffle=3)
    clean = CleanChains(chains)
    here = clean.batch(batch)
    for name, source in other.items():
        assert isinstance(source, Shuffled)
        found = source(batch, here.x_0, here.c)
        assert found.mask is not None
        for row, item in enumerate(batch):
            partner = int(source.partner[item])
            assert partner != item
            there = clean.batch([partner])
            theirs = own[name]([partner], there.x_0, there.c)
            rows = min(LENGTHS[item], LENGTHS[partner])
            mask = found.mask[row, :rows]
            assert bool(mask.any())
            assert torch.equal(found.z[row, :rows][mask], theirs.z[0, :rows][mask])
            assert not bool(found.mask[row, LENGTHS[item] :].any())


def test_a_shuffled_run_differs_in_its_latents_alone(work: Path) -> None:
    recipes = [read(work, "train.samples=12", 'without=["3di"]', *extra) for extra in ((), ("shuffle=true",))]
    write_all(recipes[0], ChainSet.read(work / "chains.npz"))
    lines = []
    for number, recipe in enumerate(recipes):
        run_recipe(recipe, work / f"run{number}", progress=False)
        lines.append(json.loads((work / f"run{number}/log.jsonl").read_text().splitlines()[0]))
    assert lines[0]["denoising"] == lines[1]["denoising"]
    assert all(lines[0][spec.name] != lines[1][spec.name] for spec in recipes[0].active)


def test_featurize_by_command_in_parts_and_again(work: Path) -> None:
    recipe = str(work / "recipe.json")
    alone = [
        "featurize",
        "--encoder",
        "teacher",
        "--option",
        f"weights={work / 'teacher'}",
        "--option",
        "read=decoder.0",
    ]
    alone += ["--set", f"train_set={work / 'chains.npz'}", "--set", f"cache={work / 'alone'}"]
    dry, first, second = commands(
        ["featurize", recipe, "--dry-run"],
        ["featurize", recipe, "--shard", "1/2", "--device", "cpu"],
        ["featurize", recipe, "--shard", "2/2", "--device", "cpu"],
    )
    assert [dry.code, first.code, second.code] == [0, 0, 0], second.stderr
    assert dry.stdout.count("(to be written)") == 4
    found = re.search(r"^total: ([\d.]+) kB; nothing was written$", dry.stdout, re.MULTILINE)
    assert found is not None
    held = {path: path.stat().st_mtime_ns for path in (work / "cache").rglob("*.safetensors")}
    assert len(held) == 4
    again, after, single = commands(
        ["featurize", recipe, "--device", "cpu"], ["featurize", recipe, "--dry-run"], [*alone, "--device", "cpu"]
    )
    assert [again.code, after.code, single.code] == [0, 0, 0], again.stderr + single.stderr
    assert {path: path.stat().st_mtime_ns for path in (work / "cache").rglob("*.safetensors")} == held
    assert after.stdout.count("(complete)") == 4
    total = sum(path.stat().st_size for path in held) / 1e3
    assert float(found[1]) == pytest.approx(total, rel=0.1)
    assert len(list((work / "alone").glob("teacher-*/manifest.json"))) == 1


def test_a_dry_run_writes_nothing(work: Path) -> None:
    (dry,) = commands(["featurize", str(work / "recipe.json"), "--dry-run"])
    assert dry.code == 0
    assert not (work / "cache").exists()


def test_a_wrong_command_is_one_line(work: Path) -> None:
    recipe = str(work / "recipe.json")
    wrong = {
        "needs a recipe": ["featurize"],
        "not both": ["featurize", recipe, "--encoder", "esm"],
        "i/N": ["featurize", recipe, "--shard", "3/2"],
        "magic": ["featurize", "--encoder", "magic"],
        "NAME=VALUE": ["featurize", "--encoder", "esm", "--option", "layer"],
        "--option belongs": ["featurize", recipe, "--option", "layer=1"],
        "no data file": ["featurize", recipe, "--set", "train_set=absent.npz"],
        "reed-protein featurize": ["train", recipe, "--out", str(work / "out")],
    }
    for (reason, arguments), done in zip(wrong.items(), commands(*wrong.values()), strict=True):
        assert done.code == 2, arguments
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_a_cache_of_something_else_is_one_line(work: Path) -> None:
    recipe = read(work, 'without=["3di", "teacher", "late", "pair"]')
    chains = ChainSet.read(work / "chains.npz")
    (spec,) = (spec for spec in recipe.active if spec.stored)
    plan = plan_of(spec, chains, work / "cache", 8)
    cache = featurize(plan, chains)
    assert cache is not None
    open_sources(recipe.active, chains, work / "cache", 8)

    fewer = ChainSet(chains.ids[1:], chains.arrays[1:], chains.tokens[1:])
    with pytest.raises(InputError, match=f"no cache of latent 'single'.*in {plan.folder.name}, the data differs"):
        open_sources(recipe.active, fewer, work / "cache", 8)
    plan.folder.rename(plan_of(spec, fewer, work / "cache", 8).folder)
    with pytest.raises(InputError, match="data differs"):
        open_sources(recipe.active, fewer, work / "cache", 8)
    plan_of(spec, fewer, work / "cache", 8).folder.rename(plan.folder)
    manifest = plan.folder / "manifest.json"
    whole = manifest.read_text()
    for text, reason in (
        (whole.replace("settings.key=single", "settings.key=pair"), r"encoder \(settings.key\) differs"),
        (whole[:30], "no manifest"),
    ):
        manifest.write_text(text)
        with pytest.raises(InputError, match=reason) as caught:
            open_sources(recipe.active, chains, work / "cache", 8)
        assert "\n" not in str(caught.value)
    manifest.write_text(whole)
    shard = plan.folder / "000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(InputError, match="bytes instead of"):
        open_sources(recipe.active, chains, work / "cache", 8)
    assert featurize(plan, chains) is not None, "a damaged shard is written again"
    open_sources(recipe.active, chains, work / "cache", 8)


def test_settings_that_change_values_change_the_folder_and_no_others(work: Path) -> None:
    chains = ChainSet.read(work / "chains.npz")
    recipe = read(work)
    single, pair, teacher = (
        next(s for s in recipe.latents if s.name == name) for name in ("single", "pair", "teacher")
    )

    def folder(spec: Any, neighbours: int = 8, **changes: Any) -> Path:
        return plan_of(spec.model_copy(update=changes), chains, work, neighbours).folder

    for spec in (single, pair, teacher):
        assert folder(spec) == folder(spec, tap="encoder.0", weight=9.0, name="else", head="gaussian", hidden=3)
    assert folder(single) == folder(single, 9)
    assert folder(pair) != folder(pair, 9)
    assert folder(single) != folder(single, key="other")
    assert folder(single) != folder(single, version="2")
    assert folder(teacher) != folder(teacher, read="decoder.0")
    before = folder(teacher)
    torch.manual_seed(2)
    save_pretrained(InverseFolding(InverseFolding.Config(**{**NETWORK, "width": 24})), work / "teacher")
    assert folder(teacher) != before, "other weights in the same folder are another teacher"

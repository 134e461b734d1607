"""The molecular benches: the EGNN is what it says, the counts are right, and every tool runs, stops and goes on."""

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from molecule.metric_cases import made
from molecule.test_equivariance import MOVES, ORDER, Move, molecules, same
from rdkit import Chem
from reed_core.hub import from_pretrained, save_pretrained
from reed_core.noise import NoiseSource
from reed_molecule.condition import Condition
from reed_molecule.known import Known
from reed_molecule.model import ModelConfig, MoleculeModel, new_config
from reed_molecule.network import NetworkConfig
from reed_molecule.splits import SPLITS
from reed_molecule.stored import About, pack
from reed_molecule.vocabulary import QM9
from typer.testing import CliRunner

TOOLS = Path(__file__).parents[2] / "tools"
SMILES = (
    "CO", "c1ccccc1", "CC(=O)[O-]", "C[NH3+]", "CC", "C1CC1", "CC=O", "NC=O", "CCO", "CCC", "COC", "CC#N", "CCN",
    "CC(=O)NC", "CCOC(C)=O", "O=C(C)NCCOC", "CCCOCCN", "CC(=O)NCCO",
)  # fmt: skip
TINY = NetworkConfig(width=16, vectors=4, pairs=8, blocks=4, heads=2, radial=6)
Bench = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """The tools by name, with their folder on the path, as when they are run."""
    before = set(sys.modules)
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module
    sys.path.remove(str(TOOLS))
    for name in set(sys.modules) - before:
        if str(TOOLS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set: the first molecules to train on, two held out, the last four, which can be cut, to test."""
    chosen = [made(one) for one in SMILES]
    whole = pack(chosen, range(len(chosen)), About("mmff94s", QM9))
    split = np.full(len(chosen), SPLITS.index("train"), dtype=whole.split.dtype)
    split[-6:-4], split[-4:] = SPLITS.index("valid"), SPLITS.index("test")
    path = tmp_path_factory.mktemp("data") / "set.npz"
    replace(whole, split=split).write(path)
    return path


def invoke(tool: ModuleType, *options: str) -> str:
    """What a tool prints."""
    app = typer.Typer()
    app.command()(tool.main)
    found = CliRunner().invoke(app, options, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def config() -> ModelConfig:
    return new_config(QM9, 1.4, (9,), TINY, "uniform")


def egnn(bench: Bench, **settings: Any) -> Any:
    torch.manual_seed(0)
    module = bench("molecule_bench.egnn")
    sizes = module.EGNNConfig(features=8, layers=2, **settings)
    model = module.EGNNModel(module.EGNNModelConfig(**dict(config()), egnn=sizes)).double().eval()
    for layer in model.network.layers:  # whose gain of 1/1000 would hide the coordinates
        torch.nn.init.normal_(layer.move.weight)
    return model


def asked(model: MoleculeModel, smiles: tuple[str, ...]) -> tuple[dict[str, torch.Tensor], torch.Tensor, Condition]:
    """A corrupted state, its times and its condition."""
    x_0, mask = molecules(model, smiles)
    t = torch.tensor([0.3, 0.7], dtype=torch.float64)
    return model.process.corrupt(x_0, t, NoiseSource(1, range(2)), Condition(mask).masks()).x_t, t, Condition(mask)


@pytest.mark.parametrize("move", MOVES)
def test_the_egnn_is_equivariant(bench: Bench, move: str) -> None:
    model, moved = egnn(bench), Move(move)
    x, t, told = asked(model, ("CC(=O)N", "c1ccoc1" if move == "permutation" else "CO"))
    with torch.no_grad():
        expected, there = model(x, t, told), moved.told(told.mask)
        found = model(moved.state(x), t, there)
    assert expected["coords"].abs().max() > 1e-2
    same(found, moved.answer(expected), there, 1e-9)
    assert len(ORDER) == x["types"].shape[1]


def test_splitting_the_first_linear_map_changes_nothing(bench: Bench) -> None:
    whole, split = egnn(bench), egnn(bench, split=True)
    split.load_state_dict(whole.state_dict())
    x, t, told = asked(whole, ("CC(=O)N", "CO"))
    with torch.no_grad():
        same(split(x, t, told), whole(x, t, told), told, 1e-12)


def test_a_layer_against_a_loop_over_pairs(bench: Bench) -> None:
    model = egnn(bench, bonds=False)
    layer, n = model.network.layers[0], 4
    h, x = torch.randn(1, n, 8, dtype=torch.float64), torch.randn(1, n, 3, dtype=torch.float64)
    given = bench("molecule_bench.egnn").differences(x)[1]
    with torch.no_grad():
        found = layer(h, x, given, Condition(torch.ones(1, n, dtype=torch.bool)).pairs)
        heard, place = torch.zeros(n, 8, dtype=torch.float64), x[0].clone()
        new = torch.zeros(n, 8, dtype=torch.float64)
        distance = torch.cdist(x[0], x[0])
        for stage in ("message", "move"):
            for i in range(n):
                for j in range(n):
                    if i == j:
                        continue
                    square = distance[i, j].square().expand(2)
                    states = h[0] if stage == "message" else new
                    part = layer.edge if stage == "message" else layer.coordinate
                    inner = torch.nn.functional.silu(part.first(torch.cat([states[i], states[j], square])))
                    out = torch.nn.functional.silu(part.second(inner))
                    if stage == "message":
                        heard[i] += layer.gate(out).sigmoid() * out
                    else:
                        pull = 15 / 2 * torch.tanh(layer.move(out))
                        place[i] += (x[0, i] - x[0, j]) / (distance[i, j] + 1) * pull
            new = h[0] + layer.node(torch.cat([h[0], heard], -1))
    torch.testing.assert_close(found[0][0], new)
    torch.testing.assert_close(found[1][0], place, rtol=1e-6, atol=1e-6)


def test_the_sizes_are_those_of_the_paper(bench: Bench) -> None:
    module = bench("molecule_bench.egnn")
    with torch.device("meta"):
        network = module.EGNN(module.EGNNConfig(features=256, layers=9, bonds=False))
    layers = 9 * (2 * (514 * 256 + 256 + 256 * 256 + 256) + 512 * 256 + 256 + 256 * 256 + 256 + 257 + 256)
    assert sum(value.numel() for value in network.layers.parameters()) == layers
    assert round(sum(value.numel() for value in network.parameters()) / 1e6, 1) == 5.3


def test_an_egnn_is_saved_and_read(bench: Bench, tmp_path: Path) -> None:
    model = egnn(bench)
    save_pretrained(model, tmp_path)
    again = from_pretrained(bench("molecule_bench.egnn").EGNNModel, tmp_path).double()
    x, t, told = asked(model, ("CC(=O)N", "CO"))
    with torch.no_grad():
        same(again(x, t, told), model(x, t, told), told, 1e-6)


def test_the_share_of_real_pairs(bench: Bench) -> None:
    padding, sizes = bench("molecule_bench.padding"), np.array([3, 4, 5, 9, 9])
    assert padding.real_share([[0, 1], [2], [3, 4]], sizes) == (9 + 16 + 25 + 162) / (32 + 25 + 162)
    plan = padding.unsorted(sizes, 100, 0)
    assert sorted(item for batch in plan for item in batch) == [0, 1, 2, 3, 4]
    assert all(len(batch) * sizes[batch].max() ** 2 <= 100 for batch in plan)


def test_intervals(bench: Bench) -> None:
    judge = bench("molecule_bench.judge")
    low, high = judge.interval(0, 20)
    assert low == 0.0
    assert math.isclose(high, 1.959964**2 / (20 + 1.959964**2), rel_tol=1e-6)
    assert math.isclose(sum(judge.interval(10, 20)), 1.0)
    assert judge.percent(0, 0) == "-"


@pytest.mark.parametrize("smiles", [*SMILES[-4:], "c1ccccc1CNC(=O)CCOC"])
@pytest.mark.parametrize("linker", [False, True])
def test_what_is_cut_hangs_by_its_bonds(bench: Bench, smiles: str, linker: bool) -> None:
    mol = made(smiles).to_rdkit()
    cut = bench("molecule_bench.fragments").cut_of(mol, linker)
    gone = set(range(mol.GetNumAtoms())) - set(cut.kept)
    assert len(gone) == cut.removed
    between = [bond for bond in mol.GetBonds() if (bond.GetBeginAtomIdx() in gone) != (bond.GetEndAtomIdx() in gone)]
    assert len(between) == (2 if cut.kind == "linker" else 1)
    assert not any(
        bond.IsInRing() or mol.GetAtomWithIdx(bond.GetBeginAtomIdx()).GetAtomicNum() == 1 for bond in between
    )
    assert sum(mol.GetAtomWithIdx(place).GetAtomicNum() > 1 for place in gone) >= 2


def test_a_molecule_without_a_bond_to_cut_is_left(bench: Bench) -> None:
    assert bench("molecule_bench.fragments").cut_of(Chem.AddHs(Chem.MolFromSmiles("c1ccccc1")), True) is None


def test_every_part_of_the_bench_prints(bench: Bench, data: Path) -> None:
    options = (
        "--rounds",
        "2",
        "--timed-pairs",
        "200",
        "--pairs",
        "400",
        "--molecules",
        "2",
        "--share",
        "0.2",
        "--quick",
    )
    said = invoke(bench("bench_molecule"), "--qm9", str(data), *options)
    for part in ("evaluation", "training", "sampling", "buckets"):
        assert f"\n{part}, QM9" in said
    assert "EGNN was timed in 2 steps, which all cost the same, and its time multiplied by 5" in said
    assert said.count("EGNN nf 256, 9 layers, split") == 4  # rows and weights of two parts


def test_equal_time_goes_on(bench: Bench, data: Path, tmp_path: Path) -> None:
    options = ("--qm9", str(data), "--only", "equal-time", "--minutes", "0.005", "--out", str(tmp_path), "--quick")
    said = invoke(bench("bench_molecule"), *options, "--molecules", "3", "--pairs", "400")
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert all(name in said for name in ("| ours |", "| EGNN nf 64, 6 layers, split |", "| real, test split |"))
    assert all(count >= 1 for count in plan["molecules"].values())
    (tmp_path / "egnn" / "drawn" / "2_0.json").unlink()
    assert invoke(bench("bench_molecule"), *options, "--molecules", "3", "--pairs", "400") == said


def test_guidance_trains_resumes_and_compares(bench: Bench, data: Path, tmp_path: Path) -> None:
    tool, network = bench("bench_molecule_guidance"), json.dumps(TINY.model_dump(exclude={"types", "charges"}))
    common = ("--data", str(data), "--out", str(tmp_path), "--samples", "24", "--seeds", "0", "--points", "2")
    few = (
        "--draws",
        "1",
        "--drawn",
        "3",
        "--steps",
        "2",
        "--set",
        "batch_pairs=400",
        "--set",
        f"network={network}",
        "--set",
        "train.log_every=1",
    )
    invoke(tool, *common, *few, "--arms", "none,shuffled")
    said = invoke(tool, *common, *few, "--arms", "guided")
    assert invoke(tool, "--out", str(tmp_path), "--read") == said
    for heading in ("validation loss", "stable molecules, % (bonds, corrected)", "valid, %"):
        assert heading in said
    rows = [line for line in said.splitlines() if line.startswith("| guided")]
    assert len(rows) >= 10
    first = [json.loads((tmp_path / f"{arm}_0" / "log.jsonl").read_text().splitlines()[0]) for arm in tool.USUAL]
    assert len({line["denoising"] for line in first}) == 1  # one initial network, one order, the same noise
    assert len({line["total"] for line in first}) == 3


def test_the_share_of_a_run_that_reaches_a_goal(bench: Bench) -> None:
    tool = bench("bench_molecule_guidance")
    curve = {50: {"valid": 20.0}, 100: {"valid": 60.0}}
    assert tool.reached(curve, 40.0, "valid", lower=False) == pytest.approx(0.75)
    assert tool.reached(curve, 70.0, "valid", lower=False) is None
    assert tool.reached({50: {"loss": 2.0}, 100: {"loss": 1.0}}, 2.0, "loss", lower=True) == 0.5


def test_completions_are_counted_beside_real_molecules(bench: Bench, data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_pretrained(MoleculeModel(config()), tmp_path / "weights")
    Known.of_smiles(["CC"]).write(tmp_path / "weights")
    out = tmp_path / "complete.jsonl"
    options = ("--data", str(data), "--weights", str(tmp_path / "weights"), "--out", str(out), "--steps", "2")
    said = invoke(bench("bench_complete"), *options, "--molecules", "4", "--no-posebusters")
    lines = out.read_text().splitlines()
    assert len(lines) == 5
    out.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])  # stopped while it wrote
    assert invoke(bench("bench_complete"), *options, "--molecules", "4", "--no-posebusters") == said
    assert out.read_text().splitlines() == lines
    real = next(line for line in said.splitlines() if line.startswith("| all | 4 | real"))
    assert real.split("|")[4].strip() == "0.0000"
    assert real.split("|")[6].strip().startswith("100.0")  # attached

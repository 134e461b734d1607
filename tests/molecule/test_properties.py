"""Properties of molecules: from files to the network, and back as what samples are asked for."""

import json
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generation_cases import Call, caller
from molecule.molecule_sets import molecules
from molecule_cases import molecule
from pydantic import ValidationError
from rdkit import Chem
from reed_core.errors import InputError
from reed_core.hub import from_pretrained, save_pretrained
from reed_core.noise import NoiseSource
from reed_molecule.condition import Condition, Property, standardised
from reed_molecule.dataset import MoleculeSet
from reed_molecule.generate import Generator, Request, load
from reed_molecule.model import ModelConfig, MoleculeModel, new_config
from reed_molecule.network import Denoiser, NetworkConfig
from reed_molecule.properties import QM9_UNITS, Table, read_asked
from reed_molecule.readers import open_source
from reed_molecule.readers.fields import missing, with_properties
from reed_molecule.readers.qm9 import named_splits, qm9_archive
from reed_molecule.recipe import Recipe
from reed_molecule.sample import Drawn, sample
from reed_molecule.splits import SPLITS
from reed_molecule.start import config_of, started
from reed_molecule.stored import About, joined, pack, read
from reed_molecule.training import Told, build_objective, recipe_process, run_recipe, training_data
from reed_molecule.vocabulary import QM9

TINY = NetworkConfig(width=16, vectors=4, pairs=8, blocks=2, heads=2, radial=6)
GAP = Property(name="gap", unit="hartree", mean=0.25, spread=0.05, low=0.1, high=0.4)
MU = Property(name="mu", mean=2.0, spread=1.0, low=0.0, high=5.0)
WATER = "3\ngdb 7\t1 2 3 {}\nO 0 0 0 0\nH 0.96 0 0 0\nH -0.24 0.93 0 0\n1 2 3\nO\nInChI\n"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(monkeypatch)


def conditional(*properties: Property, self_condition: bool = False) -> MoleculeModel:
    """A random model, whose embedding of properties is not 0, as after training."""
    torch.manual_seed(0)
    network = TINY.model_copy(update={"self_condition": self_condition})
    model = MoleculeModel(new_config(QM9, 1.5, [5, 6, 6], network, "uniform", properties)).double().eval()
    for parameter in [] if model.network.told is None else model.network.told.parameters():
        torch.nn.init.normal_(parameter)
    return model


def flat(batches: Sequence[Drawn]) -> dict[int, dict[str, torch.Tensor]]:
    """Each sample without its padding, by number."""
    out = {}
    for batch in batches:
        for row, number in enumerate(batch.numbers):
            n = int(batch.mask["types"][row].sum())
            out[number] = {k: v[row, :n, :n] if k == "bonds" else v[row, :n] for k, v in batch.state.items()}
    return out


def make_file(path: Path, table: Table | None) -> Path:
    """A set of 12 molecules, of which the last 3 are for validation."""
    chosen = molecules()
    whole = pack(chosen, range(len(chosen)), About("mmff94s", QM9), table)
    split = np.zeros(len(chosen), dtype=whole.split.dtype)
    split[-3:] = SPLITS.index("valid")
    replace(whole, split=split).write(path)
    return path


def gaps() -> Table:
    """`gap` and `mu` of the 12 molecules, some unknown."""
    values = np.stack([np.linspace(0.1, 0.4, 12), np.linspace(5.0, 0.0, 12)], 1)
    values[3, 0] = values[4, 1] = np.nan
    return Table({"gap": "hartree", "mu": ""}, values)


def recipe(path: Path, samples: int = 60, **settings: object) -> Recipe:
    train = {"samples": samples, "checkpoint_every": 100, "decay": 0.0, "ema": 0.0}
    values = {"data": str(path), "network": TINY.model_dump(), "batch_pairs": 400, "train": train, **settings}
    return Recipe.model_validate(values)


def test_tables_are_chosen_joined_and_aligned() -> None:
    one, two = Table({"a": "m", "b": ""}, np.arange(6.0).reshape(3, 2)), Table({"b": "", "c": "s"}, np.ones((1, 2)))
    whole = Table.joined([one.rows([2, 0]), two])
    assert dict(whole.units) == {"a": "m", "b": "", "c": "s"}
    np.testing.assert_array_equal(whole.values, [[4, 5, np.nan], [0, 1, np.nan], [np.nan, 1, 1]])
    np.testing.assert_array_equal(whole.columns(["c", "a"]), whole.values[:, [2, 0]])
    with pytest.raises(InputError, match=r"no property 'd' in this set: it holds a, b, c; .*--property d"):
        whole.columns(["d"])
    with pytest.raises(InputError, match="it holds none"):
        Table.empty(2).columns(["d"])
    with pytest.raises(InputError, match=r"a is in m in one file and in km"):
        Table.joined([one, Table({"a": "km"}, np.ones((1, 1)))])


def test_a_set_keeps_its_properties_and_a_set_without_is_as_before(tmp_path: Path) -> None:
    path, old = make_file(tmp_path / "some", gaps()), make_file(tmp_path / "old", None)
    stored, before = read(path), read(old)
    assert dict(stored.properties.units) == {"gap": "hartree", "mu": ""}
    np.testing.assert_array_equal(stored.properties.values, gaps().values)
    np.testing.assert_array_equal(stored.chosen(np.array([4, 1])).properties.values, gaps().values[[4, 1]])
    header = json.loads(old.read_bytes()[8 : 8 + int.from_bytes(old.read_bytes()[:8], "little")])
    assert "properties" not in header
    assert "properties" not in json.loads(header["__metadata__"]["reed_molecule"])
    assert before.properties.values.shape == (12, 0)
    assert before.fingerprint == stored.fingerprint  # caches of latents stay
    both = joined([before, stored])
    assert np.isnan(both.properties.values[:12]).all()
    np.testing.assert_array_equal(both.properties.values[12:], gaps().values)
    replace(stored, properties=gaps().rows(range(5))).write(tmp_path / "bad")
    with pytest.raises(InputError, match="properties do not fit"):
        read(tmp_path / "bad")


def test_data_fields_of_an_sdf_reach_the_prepared_set(
    call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smiles = ("CO", "ClC", "CC", "C#N", "C1CC1")  # one is outside the vocabulary: rows must not shift
    fields = ("> <logP>\n1.5\n\n", "> <logP>\n9\n\n", ">  <logP>  (3)\n-2e-1\n\n", "> <logP>\nunknown\n\n", "")
    blocks = [Chem.MolToMolBlock(molecule(one).to_rdkit()) for one in smiles]
    (tmp_path / "some.sdf").write_text("".join(f"{a}{b}$$$$\n" for a, b in zip(blocks, fields, strict=True)))
    base = ["prepare", tmp_path / "some.sdf", "--out", tmp_path / "set", "--elements", "qm9", "--quiet"]
    assert call(*base, "--property", "logD") == 2
    assert "--property logD: no record has it; the files hold logP" in capsys.readouterr().err
    assert call(*base, "--property", "logP", "--shares", "1,0,0") == 0
    made = MoleculeSet.read(tmp_path / "set")
    assert [one.name for one in made] == [one for one in smiles if one != "ClC"]
    np.testing.assert_array_equal(made.property_values(["logP"])[:, 0], [1.5, -0.2, np.nan, np.nan])


def test_qm9_in_its_forms(tmp_path: Path) -> None:
    values = [float(place) for place in range(1, 13)]
    line = " ".join(["1.2*^1", *(str(value) for value in values[1:])])
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "dsgdb9nsd_000007.xyz").write_text(WATER.format(line))
    with tarfile.open(tmp_path / "raw.tar", "w") as archive:
        archive.add(tmp_path / "raw" / "dsgdb9nsd_000007.xyz", "dsgdb9nsd_000007.xyz")
    for source in (open_source(tmp_path / "raw"), qm9_archive(tmp_path / "raw.tar", [])):
        table = with_properties(source).properties
        assert table is not None
        assert table.units == QM9_UNITS
        np.testing.assert_array_equal(table.values, [[12.0, *values[1:]]])
        named = with_properties(source, ["gap", "Cv"]).properties
        assert named is not None
        np.testing.assert_array_equal(named.values, [[5.0, 12.0]])
    block = Chem.MolToMolBlock(molecule("O").to_rdkit()).split("\n", 1)[1]
    (tmp_path / "gdb9.sdf").write_text(f"gdb_3\n{block}$$$$\ngdb_2\n{block}$$$$\n")
    (tmp_path / "gdb9.sdf.csv").write_text("mol_id,A,mu,u0,cv\ngdb_2,1,2.5,-40,6\ngdb_3,1,1.5,-56,\n")
    table = with_properties(open_source(tmp_path / "gdb9.sdf")).properties
    assert table is not None
    assert table.names == ("mu", "U0", "Cv")
    np.testing.assert_array_equal(table.values, [[1.5, -56.0, np.nan], [2.5, -40.0, 6.0]])


def test_arrays_of_an_npz_go_with_their_molecules(tmp_path: Path) -> None:
    gap = np.array([0.1, np.inf, 0.3, 0.4], dtype=np.float32)
    arrays: dict[str, Any] = {
        "num_atoms": np.full(4, 1), "charges": np.full((4, 1), 6), "positions": np.zeros((4, 1, 3)),
        "index": np.array([4, 9, 2, 7]), "gap": gap, "score": 2 * gap,
    }  # fmt: skip
    np.savez(tmp_path / "edm.npz", **arrays)
    source = with_properties(open_source(tmp_path / "edm.npz", limit=3))
    assert source.properties is not None
    assert dict(source.properties.units) == {"gap": "hartree"}
    np.testing.assert_allclose(source.properties.values[:, 0], [0.1, np.nan, 0.3], rtol=1e-6)
    other = with_properties(open_source(tmp_path / "edm.npz"), ["score"])
    assert other.properties is not None
    assert dict(other.properties.units) == {"score": ""}
    parts = named_splits(source, lambda numbers, outside: np.array([2, 0, 2])[: len(numbers)].astype(np.uint8), [])
    assert [[job[0] for job in part.jobs] for part, _ in parts] == [["gdb_9"], ["gdb_4", "gdb_2"]]
    rows = [part.properties.values[:, 0] for part, _ in parts if part.properties]
    np.testing.assert_allclose(np.concatenate(rows), [np.nan, 0.1, 0.3], rtol=1e-6)
    with pytest.raises(InputError, match="the files hold gap, score"):
        missing([other], ["weight"])


def test_properties_are_standardised_by_the_training_molecules(tmp_path: Path) -> None:
    known = MoleculeSet.read(make_file(tmp_path / "set", gaps()), "train")
    made = known.property_of("gap")
    values = gaps().values[:9, 0]
    assert (made.unit, made.low, made.high) == ("hartree", np.nanmin(values), np.nanmax(values))
    told = standardised([made], known.property_values(["gap"]))[:, 0]
    assert told.isnan().tolist() == np.isnan(values).tolist()
    assert abs(float(told.nanmean())) < 1e-6
    assert float(told[~told.isnan()].std(correction=0)) == pytest.approx(1.0)
    settings = recipe(tmp_path / "set", conditions=["gap", "mu"])
    config = config_of(settings, known)
    assert [one.name for one in config.conditions] == ["gap", "mu"]
    assert config.network.conditions == 2
    batch = Told(training_data(settings, known, 1.0, config.conditions)).batch([3, 0], NoiseSource(0, [0, 1]))
    assert batch.c.properties.isnan().tolist() == [[True, False], [False, False]]
    with pytest.raises(InputError, match="holds gap, mu"):
        config_of(recipe(tmp_path / "set", conditions=["gapp"]), known)
    with pytest.raises(InputError, match="known of 2 of 3"):
        Property.of("a", "", np.array([1.0, 1.0, np.nan]))
    with pytest.raises(ValidationError, match="once"):
        recipe(tmp_path / "set", conditions=["gap", "gap"])


def tags(path: Path) -> dict[str, object]:
    return next(iter(Chem.SDMolSupplier(str(path), sanitize=False, removeHs=False))).GetPropsAsDict()


def state(model: MoleculeModel, sizes: Sequence[int], places: int | None = None) -> tuple[dict, torch.Tensor]:
    mask = torch.arange(places or max(sizes)) < torch.tensor(sizes)[:, None]
    b, n = mask.shape
    whole = torch.zeros(b, n, dtype=torch.long)
    like = {"coords": torch.zeros(b, n, 3, dtype=torch.float64), "types": whole, "charges": whole}
    like["bonds"] = torch.zeros(b, n, n, dtype=torch.long)
    return model.process.prior(like, NoiseSource(0, range(b)), Condition(mask).masks()), mask


def test_a_network_told_nothing_is_that_of_before() -> None:
    torch.manual_seed(3)
    plain = Denoiser(TINY)
    torch.manual_seed(3)
    told = Denoiser(TINY.model_copy(update={"conditions": 2}))
    assert not any(name.startswith("told") for name in plain.state_dict())
    rest = {name: value for name, value in told.state_dict().items() if not name.startswith("told.")}
    assert set(rest) == set(plain.state_dict())
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in rest.items())
    x, mask = state(conditional(), [4, 6])
    t = torch.tensor([0.3, 0.8])
    known = Condition(mask, torch.tensor([[0.5, torch.nan], [-1.0, 2.0]]))
    for name, value in plain(x, t, Condition(mask)).items():  # its embedding starts at 0
        torch.testing.assert_close(told(x, t, known)[name], value)
    before = {"elements": QM9.symbols, "formal_charges": QM9.charges, "scale": 1.0, "sizes": {3: 1}}
    saved = ModelConfig.model_validate(before)
    assert (saved.conditions, saved.alignment, saved.network.conditions) == ((), "none", 0)


def test_the_network_sees_each_property_of_each_molecule() -> None:
    model = conditional(GAP, MU)
    x, mask = state(model, [4, 6])
    t = torch.tensor([0.3, 0.8])

    def said(*rows: Sequence[float]) -> torch.Tensor:
        return model(x, t, Condition(mask, torch.tensor(rows)))["types"]

    nan = torch.nan
    base = said([0.5, nan], [-1.0, 2.0])
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        changed = [[0.5, nan], [-1.0, 2.0]]
        changed[row][column] = 0.1
        apart = (said(*changed) - base).abs().amax((1, 2))
        assert apart[row] > 1e-6
        assert apart[1 - row] == 0
    nothing = model(x, t, Condition(mask))["types"]
    assert torch.equal(said([nan, nan], [nan, nan]), nothing)
    assert torch.equal(model(x, t, Condition(mask, torch.ones(2, 2)).null)["types"], nothing)
    wide, wide_mask = state(model, [4, 6], 9)
    again = model(wide, t, Condition(wide_mask, torch.tensor([[0.5, nan], [-1.0, 2.0]])))["types"]
    for row, size in enumerate((4, 6)):
        torch.testing.assert_close(again[row, :size], base[row, :size])


def test_hiding_reaches_the_share_asked_for(tmp_path: Path) -> None:
    known = MoleculeSet.read(make_file(tmp_path / "set", Table({"a": "", "b": ""}, np.arange(24.0).reshape(12, 2))))
    settings = recipe(tmp_path / "set", conditions=["a", "b"], drop=0.3)
    config = config_of(settings, known)
    items = [place % 12 for place in range(600)]
    data = Told(training_data(settings, known, 1.0, config.conditions), None, settings.drop)
    batch = data.batch(items, NoiseSource(1, range(600)))
    alone = batch.c.properties.isnan().double().mean(0)
    assert ((alone - 0.3).abs() < 0.1).all()
    objective = build_objective(settings, recipe_process(settings, QM9))
    whole = Condition(batch.c.mask, torch.zeros(600, 2))
    asked = objective.draw(batch.x_0, NoiseSource(2, range(600)), c=whole, mask=batch.mask).c.properties.isnan()
    assert torch.equal(asked[:, 0], asked[:, 1])
    assert abs(float(asked[:, 0].double().mean()) - 0.3) < 0.1
    assert build_objective(recipe(tmp_path / "set"), recipe_process(settings, QM9)).condition_dropout is None


@pytest.mark.parametrize("self_condition", [False, True])
def test_guidance_of_0_and_1_are_the_model_without_and_with(self_condition: bool) -> None:
    model = conditional(GAP, MU, self_condition=self_condition)

    def drawn(**settings: object) -> dict[str, torch.Tensor]:
        return flat(sample(model, sizes=[6], steps=4, seed=2, **settings))[0]  # type: ignore[arg-type]

    asked = {"gap": 0.3}
    without, given = drawn(), drawn(properties=asked)
    assert (without["coords"] - given["coords"]).abs().max() > 1e-4
    for expected, scale in ((without, 0.0), (given, 1.0)):
        found = drawn(properties=asked, guidance=scale)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert (drawn(properties=asked, guidance=3.0)["coords"] - given["coords"]).abs().max() > 1e-4
    assert (drawn(properties={"gap": 0.2})["coords"] - given["coords"]).abs().max() > 1e-4


def test_guided_coordinates_lie_on_the_line_of_both() -> None:
    """One step to data says the prediction itself, which is linear in the scale."""
    model = conditional(GAP)
    ends = [flat(sample(model, sizes=[5], steps=1, properties={"gap": 0.3}, guidance=scale))[0]["coords"]
            for scale in (0.0, 1.0, 2.5)]  # fmt: skip
    assert (ends[1] - ends[0]).abs().max() > 1e-4
    torch.testing.assert_close(ends[2], ends[0] + 2.5 * (ends[1] - ends[0]), rtol=1e-9, atol=1e-9)


def test_a_guided_sample_is_the_same_in_any_batch() -> None:
    model, asked = conditional(GAP, MU, self_condition=True), {"mu": 1.0}
    together = flat(sample(model, sizes=[6, 5, 6], steps=3, seed=4, properties=asked, guidance=2.0))
    alone = flat(sample(model, sizes=[5], steps=3, seed=4, first=1, properties=asked, guidance=2.0))
    for name, value in alone[1].items():
        torch.testing.assert_close(together[1][name], value)


def test_what_cannot_be_asked_is_said_in_one_line() -> None:
    model = conditional(GAP, MU)
    for wrong, said in (
        ({"properties": {"gapp": 1.0}}, "no property 'gapp': this model is told gap, mu"),
        ({"properties": {"gap": float("nan")}}, "finite"),
        ({"guidance": 2.0}, "without a property"),
        ({"properties": {"gap": 0.2}, "guidance": float("inf")}, "finite"),
    ):
        with pytest.raises(InputError, match=said):
            sample(model, 1, steps=1, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="told none"):
        sample(conditional(), 1, steps=1, properties={"gap": 0.2})
    assert read_asked(["gap=6.8", "a=b=-1e-3"]) == {"gap": 6.8, "a=b": -1e-3}
    for text in ("gap", "gap=", "=3", "gap=x", "gap=inf"):
        with pytest.raises(InputError, match="such as gap"):
            read_asked([text])
    with pytest.raises(InputError, match="twice"):
        read_asked(["gap=1", "gap=2"])
    with pytest.raises(InputError, match="without a property"):
        Request(1, guidance=2.0)


def test_the_python_interface_warns_of_values_far_off() -> None:
    generator = Generator(conditional(GAP).float(), None, "some")
    with pytest.warns(UserWarning, match=r"gap = 6.8 lies outside .* 0.1 to 0.4 hartree"):
        generator.sample(1, steps=1, only="any", properties={"gap": 6.8}, guidance=2.0)
    assert generator.far_off({"gap": 0.3}) == generator.far_off({}) == []


def test_the_command_line_asks_and_records(call: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_pretrained(conditional(GAP).float(), tmp_path / "weights")
    assert load(tmp_path / "weights").model.config.conditions == (GAP,)
    base = ["sample", "--weights", tmp_path / "weights", "--steps", 2, "--out", tmp_path / "some.sdf", "--quiet"]
    assert call(*base, "--property", "gap=6.8", "--guidance", 2, "--sampler", "flow") == 0
    assert [line for line in capsys.readouterr().err.splitlines() if "gap = 6.8 lies outside" in line]
    said = tags(tmp_path / "some.sdf")
    assert (said["asked_gap"], said["guidance"], said["sampler"]) == (6.8, 2.0, "flow")
    assert call(*base) == 0
    said = tags(tmp_path / "some.sdf")
    assert (said["sampler"], "asked_gap" in said, "guidance" in said) == ("ancestral", False, False)
    for wrong, line in (
        (["--property", "mu=1"], "this model is told gap"),
        (["--guidance", 2], "without a property"),
        (["--property", "gap"], "such as gap"),
        (["--sampler", "euler"], "ancestral or flow"),
    ):
        assert call(*base, *wrong) == 2
        assert line in capsys.readouterr().err


def test_a_run_is_told_properties_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = make_file(tmp_path / "set", gaps())
    settings = {"conditions": ["gap"], "drop": 0.2}
    whole = run_recipe(recipe(path, 24, **settings), tmp_path / "whole", progress=False)
    run_recipe(recipe(path, 12, **settings), tmp_path / "parts", progress=False)
    parts = run_recipe(recipe(path, 24, **settings), tmp_path / "parts", progress=False)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=0, atol=0)
    told = from_pretrained(MoleculeModel, tmp_path / "whole" / "weights")
    assert [one.name for one in told.config.conditions] == ["gap"]
    assert told.network.told is not None
    assert bool((told.network.told.unknown != 0).any())
    assert bool((told.network.told.values[0][2].weight != 0).any())  # type: ignore[index]
    with pytest.raises(InputError, match="another recipe"):
        run_recipe(recipe(path, 24), tmp_path / "whole", progress=False)


def test_other_weights_are_taken_over_by_the_names_of_properties(tmp_path: Path) -> None:
    before = conditional(MU, GAP).float()
    save_pretrained(before, tmp_path / "weights")
    known = MoleculeSet.read(make_file(tmp_path / "set", gaps()))
    settings = recipe(tmp_path / "set", conditions=["gap"], init=str(tmp_path / "weights"))
    config = config_of(settings, known)
    assert (config.conditions[0].mean, config.conditions[0].spread) == (GAP.mean, GAP.spread)
    assert config.conditions[0].low == known.property_of("gap").low
    after = started(settings, config).model
    old, new = before.network.told, after.network.told
    assert old is not None and new is not None  # noqa: PT018
    assert torch.equal(new.unknown[0], old.unknown[1])
    for mine, theirs in zip(new.values[0].parameters(), old.values[1].parameters(), strict=True):
        assert torch.equal(mine, theirs)
    plain = recipe(tmp_path / "set", init=str(tmp_path / "weights"))
    assert started(plain, conditional().config).model.network.told is None

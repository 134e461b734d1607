from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from molecule_cases import SMILES, molecule, single_atom
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_core.train import DataSource
from reed_molecule.dataset import MoleculeSet, TrainingData, random_rotations
from reed_molecule.molecule import flat_smiles
from reed_molecule.splits import Shares, by_hash, edm, identity, without_leaks
from reed_molecule.stored import About, Stored, joined, pack, read
from reed_molecule.vocabulary import DRUGS, QM9


def packed(names: tuple[str, ...] = SMILES, about: About | None = None) -> Stored:
    made = [molecule(name) for name in names]
    return pack(made, [identity(flat_smiles(one.smiles)) for one in made], about or About("mmff94s", DRUGS))


def assert_same(stored: Stored, names: tuple[str, ...]) -> None:
    assert len(stored) == len(names)
    for i, name in enumerate(names):
        given_, back = molecule(name), stored.molecule(i)
        np.testing.assert_array_equal(back.numbers, given_.numbers)
        np.testing.assert_array_equal(back.charges, given_.charges)
        np.testing.assert_array_equal(back.bonds, given_.bonds)
        np.testing.assert_allclose(back.positions, given_.positions - given_.positions.mean(0), atol=0.00051)
        assert (back.name, back.smiles) == (name, given_.smiles)


@given(st.lists(st.sampled_from(SMILES), max_size=12), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_file_choice_and_joining_give_molecules_back(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], seed: int
) -> None:
    path = tmp_path_factory.mktemp("set") / "some.safetensors"
    whole = packed(tuple(names))
    whole.write(path)
    mapped = read(path)
    assert_same(mapped, tuple(names))
    assert mapped.fingerprint == whole.fingerprint
    assert mapped.about == replace(whole.about, dropped={})
    items = np.random.default_rng(seed).permutation(len(names))[: len(names) // 2 + 1]
    assert_same(mapped.chosen(items), tuple(names[i] for i in items))
    assert_same(joined([mapped, whole, mapped.chosen(items)]), (*names, *names, *(names[i] for i in items)))


def test_the_fingerprint_sees_every_kind_of_change() -> None:
    stored = packed(("CO", "C#N"))
    changed = [
        replace(stored, positions=stored.positions + np.int16(1)),
        replace(stored, charges=stored.charges + np.int8(1)),
        replace(stored, about=About("dft-b3lyp", DRUGS)),
        stored.chosen(np.array([1, 0])),
        stored.with_split(np.array([0, 1], dtype=np.uint8), ""),
    ]
    assert len({stored.fingerprint, *(one.fingerprint for one in changed)}) == 1 + len(changed)


def test_geometries_and_vocabularies_never_mix() -> None:
    one = packed(("CO",))
    with pytest.raises(InputError, match="geometry do not mix"):
        joined([one, packed(("CO",), About("dft-b3lyp", DRUGS))])
    with pytest.raises(InputError, match="geometry do not mix"):
        MoleculeSet.join([MoleculeSet(one), MoleculeSet(packed(("CO",), About("file", DRUGS)))])
    with pytest.raises(InputError, match="vocabularies"):
        joined([one, packed(("CO",), About("mmff94s", QM9))])
    with pytest.raises(InputError, match="atomic number 5"):
        packed(("OB(O)c1ccccc1",), About("file", QM9))
    far = replace(molecule("O"), positions=np.float32([[0, 0, 0], [0, 0, 99], [0, 0, -99]]))
    with pytest.raises(InputError, match="further"):
        pack([far], [0], About("file", QM9))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    packed(("CO", "C")).write(good)
    data = good.read_bytes()
    bad = tmp_path / "bad.safetensors"
    for content in (b"", b"x" * 100, data[:-9], data[: len(data) // 2]):
        bad.write_bytes(content)
        with pytest.raises(InputError):
            read(bad)
    stored = packed(("CO", "C"))
    replace(stored, bonds=stored.bonds + np.int16(7)).write(bad)
    with pytest.raises(InputError, match="bond"):
        read(bad)
    replace(stored, offsets=stored.offsets[::-1].copy()).write(bad)
    with pytest.raises(InputError, match="fit"):
        read(bad)
    with pytest.raises(InputError, match="no prepared set"):
        read(tmp_path / "none")


def test_a_plan_has_every_molecule_once_within_the_budget() -> None:
    molecules = MoleculeSet(packed(SMILES * 4))
    for pairs in (1, 300, 2000):
        plan = TrainingData(molecules, seed=1, pairs=pairs).plan(0)
        assert sorted(item for batch in plan for item in batch) == list(range(len(molecules)))
        assert all(len(batch) == 1 or len(batch) * molecules.sizes[batch].max() ** 2 <= pairs for batch in plan)


def test_batches_are_what_a_process_takes() -> None:
    data = TrainingData(MoleculeSet(packed()), seed=3, pairs=1000, scale=1.7)
    assert isinstance(data, DataSource)
    assert data.plan(0) == data.plan(0) != data.plan(1)
    vocabulary = data.molecules.vocabulary
    for items in data.plan(0):
        batch = data.batch(items, NoiseSource(5, items))
        x_0, mask = batch.x_0, batch.mask
        torch.testing.assert_close(x_0["coords"].sum(1), torch.zeros(len(items), 3), atol=1e-5, rtol=0)
        torch.testing.assert_close(x_0["bonds"], x_0["bonds"].transpose(1, 2))
        assert not x_0["bonds"][~mask["bonds"]].any()
        assert not x_0["coords"][~mask["coords"]].any()
        for row, item in enumerate(items):
            given_ = data.molecules[item]
            n = len(given_)
            assert int(mask["types"][row].sum()) == n
            assert int(mask["bonds"][row].sum()) == n * (n - 1)
            np.testing.assert_array_equal(vocabulary.numbers_of(x_0["types"][row, :n].numpy()), given_.numbers)
            np.testing.assert_array_equal(vocabulary.charges_of(x_0["charges"][row, :n].numpy()), given_.charges)
            assert int((x_0["bonds"][row] > 0).sum()) == 2 * len(given_.bonds)
            for i, j, class_ in given_.bonds:
                assert x_0["bonds"][row, i, j] == class_
            place = x_0["coords"][row, :n] * data.scale
            expected = torch.cdist(torch.from_numpy(given_.positions), torch.from_numpy(given_.positions))
            torch.testing.assert_close(torch.cdist(place, place), expected, atol=2e-4, rtol=0)


def test_a_sample_is_turned_alike_in_any_batch_and_only_if_asked() -> None:
    data = TrainingData(MoleculeSet(packed()), seed=3, pairs=1000)
    alone = data.batch([5], NoiseSource(5, [17])).x_0["coords"]
    among = data.batch([2, 5, 16], NoiseSource(5, [1, 17, 2])).x_0["coords"]
    torch.testing.assert_close(among[1, : alone.shape[1]], alone[0], atol=1e-6, rtol=0)
    still = replace(data, rotate=False).batch([5], NoiseSource(5, [17])).x_0["coords"]
    torch.testing.assert_close(still[0], torch.from_numpy(data.molecules[5].positions), atol=1e-3, rtol=0)
    assert not torch.allclose(still, alone, atol=0.1)


def test_rotations_are_proper_and_uniform() -> None:
    turns = random_rotations(NoiseSource(0, range(4000))).double()
    eye = torch.eye(3, dtype=torch.float64).expand(4000, 3, 3)
    torch.testing.assert_close(turns @ turns.transpose(1, 2), eye, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(4000, dtype=torch.float64), atol=1e-5, rtol=0)
    # Under Haar measure entries have mean 0 and variance 1/3, and the trace has mean 0 and second moment 1.
    assert turns.mean(0).abs().max() < 5 * (1 / 3 / 4000) ** 0.5
    assert (turns.square().mean(0) - 1 / 3).abs().max() < 0.03
    trace = turns.diagonal(dim1=1, dim2=2).sum(1)
    assert abs(float(trace.square().mean()) - 1) < 0.1


def test_a_set_is_indexed_split_and_measured() -> None:
    stored = packed().with_split((np.arange(len(SMILES)) % 2 * 2).astype(np.uint8), "by hand")
    whole = MoleculeSet(stored)
    assert [one.name for one in whole.of("test")] == list(SMILES[1::2])
    assert whole[-1].name == SMILES[-1]
    with pytest.raises(IndexError):
        whole[len(SMILES)]
    with pytest.raises(InputError, match="valid"):
        whole.of("valid")
    every = np.concatenate([one.positions for one in whole])
    assert whole.spread() == pytest.approx(float(np.sqrt(np.square(every.astype(float)).mean())), rel=1e-5)
    with pytest.raises(InputError, match="without molecules"):
        TrainingData(MoleculeSet(packed(())), 0, 10)
    one = TrainingData(MoleculeSet(pack([single_atom(8)], [1], About("file", QM9))), 0, 10)
    assert not one.batch([0], NoiseSource(0, [0])).mask["bonds"].any()


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 2)), max_size=40))
def test_no_molecule_is_in_two_splits(rows: list[tuple[int, int]]) -> None:
    identities = np.array([row[0] for row in rows], dtype=np.int64)
    splits = np.array([row[1] for row in rows], dtype=np.uint8)
    keep = without_leaks(identities, splits)
    for key in set(identities.tolist()):
        mine = splits[identities == key]
        assert set(splits[keep & (identities == key)].tolist()) == {int(mine.max())}
        assert (keep & (identities == key)).sum() == (mine == mine.max()).sum()


def test_the_hash_split_has_its_shares_and_is_blind_to_stereo_and_to_company() -> None:
    identities = np.array([identity(str(i)) for i in range(20000)], dtype=np.int64)
    splits = by_hash(identities, Shares(0.8, 0.15, 0.05))
    np.testing.assert_allclose(np.bincount(splits, minlength=3) / 20000, [0.8, 0.15, 0.05], atol=0.012)
    np.testing.assert_array_equal(by_hash(identities[::7], Shares(0.8, 0.15, 0.05)), splits[::7])
    assert not by_hash(identities, Shares(1, 0, 0)).any()
    left, right = (flat_smiles(molecule(name).smiles) for name in ("C[C@H](O)F", "C[C@@H](O)F"))
    assert identity(left) == identity(right)
    with pytest.raises(InputError):
        Shares(0.5, 0.1, 0.1)


def test_edm_split_has_its_sizes_and_refuses_what_it_left_out() -> None:
    outside = range(1, 3055)
    splits = edm(np.arange(3055, 133886), outside)
    assert np.bincount(splits).tolist() == [100000, 17748, 13083]
    assert np.bincount(edm(np.arange(3055, 4055), outside)).tolist() != [1000, 0, 0]
    for number in (5, 0, 133886):
        with pytest.raises(InputError, match=str(number)):
            edm(np.array([number]), outside)

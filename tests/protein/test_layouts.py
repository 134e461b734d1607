"""Readers of training layouts, on small files written here."""

import csv
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_structures import helix
from reed_core.errors import InputError
from reed_core.noise import NoiseSource
from reed_protein.complete import complete_chain, tag_free
from reed_protein.dataset import ChainSet, TrainingData
from reed_protein.layout_cath import CathLayout, read_cath
from reed_protein.layout_mpnn import MpnnChains, MpnnLayout

# name, cluster, length, resolution
ROWS = [
    ("1abc_A", 7, 20, "1.80"),
    ("1abc_B", 7, 20, "1.80"),
    ("2abc_A", 7, 22, "2.10"),
    ("3xyz_A", 3, 30, "2.00"),
    ("4xyz_A", 5, 24, "3.40"),
    ("5low_A", 9, 24, "9.00"),
    ("6nmr_A", 11, 24, ""),
    ("7big_A", 13, 80, "2.00"),
    ("8val_A", 21, 26, "2.00"),
    ("8val_B", 21, 26, "2.00"),
    ("9tst_A", 22, 28, "2.00"),
]


def write_chain(folder: Path, name: str, length: int, seed: int, numpy: bool = False) -> None:
    made = helix(length, seed=seed)
    xyz = torch.full((length, 14, 3), float("nan"))
    xyz[:, :4] = torch.from_numpy(made.coords)
    place = folder / "pdb" / name[1:3]
    place.mkdir(parents=True, exist_ok=True)
    content = {"seq": made.sequence, "xyz": xyz.numpy() if numpy else xyz, "mask": torch.isfinite(xyz).all(-1)}
    torch.save({**content, "bfac": torch.zeros(length, 14), "occ": torch.ones(length, 14)}, place / f"{name}.pt")


@pytest.fixture
def mpnn(tmp_path: Path) -> Path:
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["CHAINID", "DEPOSITION", "RESOLUTION", "HASH", "CLUSTER", "SEQUENCE"])
        for seed, (name, cluster, length, resolution) in enumerate(ROWS):
            writer.writerow([name, "2020-01-01", resolution, f"{seed:06d}", cluster, helix(length, seed=seed).sequence])
            write_chain(tmp_path, name, length, seed, numpy=seed == 3)
    (tmp_path / "valid_clusters.txt").write_text("21\n")
    (tmp_path / "test_clusters.txt").write_text("22\n")
    return tmp_path


def layout(**settings: Any) -> MpnnLayout:
    return MpnnLayout(layout="proteinmpnn", **settings)


def test_parts_and_filters(mpnn: Path) -> None:
    names = {part: set(MpnnChains(layout(part=part), mpnn).ids) for part in ("train", "valid", "test")}
    assert names["valid"] == {"8val_A", "8val_B"}
    assert names["test"] == {"9tst_A"}
    assert names["train"] == {"1abc_A", "1abc_B", "2abc_A", "3xyz_A", "4xyz_A", "7big_A"}
    assert "7big_A" not in MpnnChains(layout(max_length=60), mpnn).ids
    assert set(MpnnChains(layout(min_length=25), mpnn).ids) == {"3xyz_A", "7big_A"}
    assert "4xyz_A" not in MpnnChains(layout(resolution=3.0), mpnn).ids
    assert {"5low_A", "6nmr_A"} <= set(MpnnChains(layout(resolution=None), mpnn).ids)
    assert MpnnChains(layout(members="first"), mpnn).ids == ("3xyz_A", "4xyz_A", "1abc_A", "7big_A")


def test_a_chain_is_read_as_it_was_written(mpnn: Path) -> None:
    chains = MpnnChains(layout(), mpnn)
    for item, name in enumerate(chains.ids):
        seed = [row[0] for row in ROWS].index(name)
        found, made = chains.chain(item), helix(ROWS[seed][2], seed=seed)
        assert found.id == name
        assert len(found.tokens) == chains.lengths[item]
        np.testing.assert_array_equal(found.arrays.coords, made.coords)
        assert found.arrays.position.tolist() == list(range(len(made)))
        assert "".join("ACDEFGHIKLMNPQRSTVWYX"[token] for token in found.tokens) == made.sequence


def test_an_epoch_has_one_random_member_of_each_cluster_and_loses_none(mpnn: Path) -> None:
    """Upstream's loader drops the chain that closes a batch; here every cluster is seen in every epoch."""
    chains = MpnnChains(layout(), mpnn)
    data = TrainingData(chains, seed=3, residues=60, jitter=0.0)
    seen: Counter[str] = Counter()
    for epoch in range(60):
        plan = data.plan(epoch)
        items = [item for batch in plan for item in batch]
        assert sorted(chains.groups[items]) == [3, 5, 7, 13]
        assert plan == data.plan(epoch)
        assert all(len(batch) == 1 or max(chains.lengths[i] for i in batch) * len(batch) <= 60 for batch in plan)
        seen.update(chains.ids[item] for item in items)
    assert seen["3xyz_A"] == 60
    assert all(8 <= seen[name] <= 32 for name in ("1abc_A", "1abc_B", "2abc_A")), "20 of 60 are expected of each"
    assert seen != Counter(
        chains.ids[item]
        for epoch in range(60)
        for batch in TrainingData(chains, 4, 60, 0.0).plan(epoch)
        for item in batch
    )


def test_batches_of_it_can_be_trained_on(mpnn: Path) -> None:
    chains = MpnnChains(layout(), mpnn)
    batch = TrainingData(chains, 0, 60, 0.1).batch([0, 1], NoiseSource(0, [0, 1]))
    assert batch.c.ids == (chains.ids[0], chains.ids[1])
    assert batch.mask is not None
    assert ChainSet.of(chains).ids == ("3xyz_A", "4xyz_A", "1abc_A", "7big_A")


def test_unresolved_residues_leave_their_place_open(mpnn: Path) -> None:
    path = mpnn / "pdb/xy/3xyz_A.pt"
    write_chain(mpnn, "3xyz_A", 30, 3)
    content = torch.load(path, weights_only=True)
    content["xyz"][4:9, 1] = float("nan")
    torch.save(content, path)
    found = MpnnChains(layout(), mpnn).chain(0)
    assert found.id == "3xyz_A"
    assert found.arrays.position.tolist() == [*range(4), *range(9, 30)]
    assert len(found.tokens) == 25


def test_a_chain_without_coordinates_gives_way_to_the_next(mpnn: Path) -> None:
    path = mpnn / "pdb/ab/1abc_A.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "xyz": torch.full_like(content["xyz"], float("nan"))}, path)
    chains = MpnnChains(layout(), mpnn)
    assert chains.chain(chains.ids.index("1abc_A")).id == "1abc_B"


class Harm:
    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return (Path.touch, (Path("harm"),))


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "harm", "no seq", "lengths"])
def test_a_bad_chain_is_one_line(mpnn: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mpnn)
    path = mpnn / "pdb/xy/3xyz_A.pt"
    content = torch.load(mpnn / "pdb/ab/1abc_A.pt", weights_only=True)
    path.unlink()
    if kind == "harm":
        path.write_bytes(pickle.dumps({"seq": Harm()}, protocol=2))
    elif kind == "no seq":
        torch.save({"xyz": content["xyz"]}, path)
    elif kind == "lengths":
        torch.save({**content, "seq": "AAA"}, path)
    elif kind != "missing":
        path.write_bytes(b"" if kind == "empty" else b"text")
    with pytest.raises(InputError) as caught:
        MpnnChains(layout(), mpnn).chain(0)
    assert "\n" not in str(caught.value)
    assert "3xyz_A" in str(caught.value)
    assert not (mpnn / "harm").exists()


@pytest.mark.parametrize("name", ["list.csv", "valid_clusters.txt", "test_clusters.txt"])
@pytest.mark.parametrize("content", [None, "no,columns\n1,2\n"])
def test_a_bad_table_is_one_line(mpnn: Path, name: str, content: str | None) -> None:
    (mpnn / name).unlink()
    if content is not None:
        (mpnn / name).write_text(content)
    with pytest.raises(InputError, match=name) as caught:
        MpnnChains(layout(), mpnn)
    assert "\n" not in str(caught.value)


def test_its_fingerprint_follows_rows_and_settings_not_the_folder(mpnn: Path) -> None:
    own = MpnnChains(layout(), mpnn).fingerprint
    assert MpnnChains(layout(folder="elsewhere"), mpnn).fingerprint == own
    others = [layout(trim_tags=True), layout(max_length=60), layout(members="first")]
    assert len({own, *(MpnnChains(other, mpnn).fingerprint for other in others)}) == 4


@pytest.mark.parametrize(
    ("sequence", "left"),
    [
        ("MGSSHHHHHHSSGACDEF" + "G" * 30, "SSGACDEF" + "G" * 30),
        ("G" * 30 + "LEHHHHHHHH", "G" * 30 + "LE"),
        ("MHHHHHHG" + "A" * 40 + "HHHHHH", "G" + "A" * 40),
        ("A" * 30 + "HHHHHH" + "A" * 30, "A" * 30 + "HHHHHH" + "A" * 30),
        ("AHHHHHA", "AHHHHHA"),
        ("HHHHHH", ""),
    ],
)
def test_tags_are_trimmed_at_the_ends_alone(sequence: str, left: str) -> None:
    kept = tag_free(sequence)
    assert sequence[kept.start : kept.stop] == left
    atoms = np.random.default_rng(0).normal(size=(len(sequence), 4, 3)).astype(np.float32)
    chain = complete_chain("x", sequence, atoms, trim_tags=True)
    assert (0 if chain is None else len(chain.tokens)) == len(left)
    if chain is not None:
        assert chain.arrays.position.tolist() == list(kept)


def record(name: str, length: int, seed: int, flat: bool = False) -> dict[str, Any]:
    made = helix(length, seed=seed)
    coords: Any = {atom: made.coords[:, k].tolist() for k, atom in enumerate(("N", "CA", "C", "O"))}
    return {"name": name, "seq": made.sequence, "coords": made.coords.tolist() if flat else coords, "num_chains": 1}


@pytest.fixture
def cath(tmp_path: Path) -> Path:
    rows = [
        record("1aaa.A", 20, 0),
        record("2bbb.B", 30, 1, flat=True),
        record("3ccc.A", 25, 2),
        record("4ddd.A", 40, 3),
    ]
    rows[2]["seq"] = "X" + rows[2]["seq"][1:]
    for atom in rows[0]["coords"].values():
        atom[5] = [float("nan")] * 3
        atom[6] = None
    for atom in rows[0]["coords"]:
        rows[0]["coords"][atom][6] = [None, None, None]
    (tmp_path / "chain_set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = {"train": ["1aaa.A", "2bbb.B", "3ccc.A"], "validation": ["4ddd.A"], "test": []}
    (tmp_path / "chain_set_splits.json").write_text(json.dumps(splits))
    return tmp_path


def read(folder: Path, **settings: Any) -> ChainSet:
    return read_cath(
        CathLayout(layout="cath", **settings), folder / "chain_set.jsonl", folder / "chain_set_splits.json"
    )


def test_cath_reads_its_splits(cath: Path) -> None:
    found = read(cath)
    assert found.ids == ("1aaa.A", "2bbb.B", "3ccc.A")
    assert read(cath, part="validation").ids == ("4ddd.A",)
    assert read(cath, max_length=25).ids == ("1aaa.A", "3ccc.A")
    assert read(cath, skip_unknown=True).ids == ("1aaa.A", "2bbb.B")
    assert found.arrays[0].position.tolist() == [*range(5), *range(7, 20)]
    np.testing.assert_allclose(found.arrays[1].coords, helix(30, seed=1).coords, atol=1e-6)
    assert found.tokens[2][0] == 20
    assert len(read_cath(CathLayout(layout="cath", splits=None), cath / "chain_set.jsonl", None)) == 4


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("chain_set.jsonl", "{\n", "line 1"),
        ("chain_set.jsonl", '{"name": "1aaa.A"}\n', "line 1"),
        ("chain_set.jsonl", '{"name": "1aaa.A", "seq": "AAA", "coords": {"N": []}}\n', "do not fit"),
        ("chain_set.jsonl", '{"name": "1aaa.A", "seq": "AAA", "coords": [[1]]}\n', "do not fit"),
        ("chain_set.jsonl", "\n", "lacks 3 chains"),
        ("chain_set.jsonl", None, "cannot read"),
        ("chain_set_splits.json", "[]", "no split"),
        ("chain_set_splits.json", '{"test": []}', "no split 'train'"),
        ("chain_set_splits.json", '{"train": []}', "no chain"),
        ("chain_set_splits.json", None, "no split"),
    ],
)
def test_a_bad_cath_file_is_one_line(cath: Path, name: str, content: str | None, reason: str) -> None:
    (cath / name).unlink()
    if content is not None:
        (cath / name).write_text(content)
    with pytest.raises(InputError, match=reason) as caught:
        read(cath)
    assert "\n" not in str(caught.value)

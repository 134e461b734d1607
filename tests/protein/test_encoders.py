"""Encoders that need no other package: fixed functions of each chain, and one line for what does not fit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_chains import chain_set, complex_of, helices
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.testing.encoder import check_encoder
from reed_protein.dataset import CleanChains, NamedBackbone
from reed_protein.encoders import ArrayEncoder, Contact, Environment, Identity, StructuralAlphabet, Teacher
from reed_protein.encoders.graph import Edges, edges_of, on_edges
from reed_protein.network import InverseFolding

LENGTHS = (18, 24, 30, 21)


def data() -> CleanChains:
    return CleanChains(helices(*LENGTHS))


def write_arrays(folder: Path, **changes: Any) -> str:
    """AlphaFold-3-like files for the four helices; row r of chain c is [c, r], pair (r, s) is [c, r, s]."""
    for k, length in enumerate(LENGTHS):
        single = np.stack([np.full(length, k), np.arange(length)], -1).astype(np.float16)
        rows, columns = np.meshgrid(np.arange(length), np.arange(length), indexing="ij")
        pair = np.stack([np.full_like(rows, k), rows, columns], -1).astype(np.float16)
        np.savez(folder / f"h{k}.npz", **{"single_embeddings": single, "pair_embeddings": pair, **changes})
    return str(folder / "{id}.npz")


def write_states(folder: Path) -> Path:
    path = folder / "states.fa"
    path.write_text("".join(f">h{k} state\n{'dvX'.ljust(length, 'p')}\n" for k, length in enumerate(LENGTHS)))
    return path


@pytest.mark.parametrize(
    "name", ["identity", "environment", "contact", "token arrays", "pair arrays", "3di", "teacher", "pair teacher"]
)
def test_it_is_a_fixed_function_of_each_chain(tmp_path: Path, network: InverseFolding, name: str) -> None:
    pattern = write_arrays(tmp_path)
    encoder = {
        "identity": lambda: Identity(),
        "environment": lambda: Environment(6),
        "contact": lambda: Contact(6),
        "token arrays": lambda: ArrayEncoder(pattern, "single_embeddings", 2, "token"),
        "pair arrays": lambda: ArrayEncoder(pattern, "pair_embeddings", 3, "pair", neighbours=9),
        "3di": lambda: StructuralAlphabet(write_states(tmp_path)),
        "teacher": lambda: Teacher(network, "decoder.1"),
        "pair teacher": lambda: Teacher(network, "decoder.1.message", "pair", 15),
    }[name]()
    check_encoder(encoder, data())


def test_arrays_land_on_their_residues_and_edges(tmp_path: Path) -> None:
    pattern = write_arrays(tmp_path)
    batch = data().batch([2, 0])
    found = ArrayEncoder(pattern, "single_embeddings", 2, "token")(batch.x_0, batch.c, batch.mask)
    assert found.z[0, :30].tolist() == [[2.0, r] for r in range(30)]
    assert found.z[1, :18].tolist() == [[0.0, r] for r in range(18)]
    assert found.mask is not None
    assert found.mask.sum(1).tolist() == [30, 18]
    pairs = ArrayEncoder(pattern, "pair_embeddings", 3, "pair", neighbours=9)(batch.x_0, batch.c, batch.mask)
    edges = edges_of(batch.c, 9)
    assert pairs.mask is not None
    assert torch.equal(pairs.mask, edges.mask)
    for i in range(30):
        for slot in range(9):
            assert pairs.z[0, i, slot].tolist() == [2.0, i, int(edges.neighbours[0, i, slot])]


def test_padding_of_a_bucket_is_cut_at_the_checked_length(tmp_path: Path) -> None:
    write_arrays(tmp_path)
    padded = np.full((256, 2), np.nan, dtype=np.float16)
    padded[:18] = np.load(tmp_path / "h0.npz")["single_embeddings"]
    np.savez(tmp_path / "h0.npz", single_embeddings=padded)
    batch = data().batch([0])
    encoder = ArrayEncoder(str(tmp_path / "{id}.npz"), "single_embeddings", 2, "token")
    assert encoder(batch.x_0, batch.c).z[0].tolist() == [[0.0, r] for r in range(18)]
    np.savez(tmp_path / "h0.npz", single_embeddings=padded, length=19)
    with pytest.raises(InputError, match="another sequence"):
        encoder(batch.x_0, batch.c)


def test_rows_of_known_residues_and_of_full_sequences(tmp_path: Path) -> None:
    batch = data().batch([1])
    known = np.stack([np.arange(23), np.arange(23)], -1).astype(np.float16)
    np.savez(tmp_path / "h1.npz", a=known)
    found = ArrayEncoder(str(tmp_path / "{id}.npz"), "a", 2, "token", "known")(batch.x_0, batch.c)
    assert found.mask is not None
    assert not found.mask[0, 0]
    assert found.z[0, 1:, 0].tolist() == list(range(23))
    gap = batch.c.position + 5 * (torch.arange(24) >= 10)
    full = np.stack([np.arange(40), np.arange(40)], -1).astype(np.float16)
    np.savez(tmp_path / "h1.npz", a=full, length=40)
    moved = NamedBackbone(batch.c.coords, batch.c.mask, gap, batch.c.chain, batch.c.ids)
    found = ArrayEncoder(str(tmp_path / "{id}.npz"), "a", 2, "token", "sequence")(batch.x_0, moved)
    assert found.z[0, :, 0].tolist() == gap[0].tolist()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"single_embeddings": np.zeros((17, 2), np.float16)}, "another sequence"),
        ({"single_embeddings": np.zeros((64, 2), np.float16)}, "another sequence"),
        ({"single_embeddings": np.zeros((18, 3), np.float16)}, "expected"),
        ({"single_embeddings": np.zeros((18, 18, 2), np.float16)}, "expected"),
        ({"other": np.zeros(1)}, "holds no array"),
        (None, "no file"),
        (b"", "cannot be read"),
        (b"no archive", "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(tmp_path: Path, change: Any, reason: str) -> None:
    path = tmp_path / "h0.npz"
    if isinstance(change, bytes):
        path.write_bytes(change)
    elif change is not None:
        np.savez(path, **change)
    batch = data().batch([0])
    with pytest.raises(InputError, match=reason) as caught:
        ArrayEncoder(str(tmp_path / "{id}.npz"), "single_embeddings", 2, "token")(batch.x_0, batch.c)
    assert "\n" not in str(caught.value)


def test_a_pattern_without_a_place_for_the_name_is_refused() -> None:
    with pytest.raises(InputError, match="names one file"):
        ArrayEncoder("af3.npz", "a", 2, "token")


def test_states_are_classes_and_unknown_ones_cost_nothing(tmp_path: Path) -> None:
    batch = data().batch([0])
    found = StructuralAlphabet(write_states(tmp_path))(batch.x_0, batch.c)
    letters = "ACDEFGHIKLMNPQRSTVWY"
    assert found.z[0].tolist() == [letters.find(letter) for letter in "DVX".ljust(18, "P")]
    assert found.mask is not None
    assert found.mask[0].tolist() == [True, True, False, *[True] * 15]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (">h0\nDDD\n", "3 3Di states for the 18"),
        (">other\nDDD\n", "no 3Di states for chain h0"),
        (">h0\nD1Z\n", "1, Z"),
    ],
)
def test_states_that_do_not_fit_are_one_line(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "s.fa").write_text(text)
    batch = data().batch([0])
    with pytest.raises(InputError, match=reason) as caught:
        StructuralAlphabet(tmp_path / "s.fa")(batch.x_0, batch.c)
    assert "\n" not in str(caught.value)


def test_a_teacher_reads_the_clean_sequence(network: InverseFolding) -> None:
    """Its state of a residue follows that residue; its pairs are the message's own, on its own edges."""
    batch = data().batch([2])
    teacher = Teacher(network, "decoder.0.message", "pair", 20)
    before, after = (teacher(x, batch.c).z for x in (batch.x_0, (batch.x_0 + 1) % 20))
    assert not torch.allclose(before, after)
    found = teacher(batch.x_0, batch.c)
    assert found.mask is not None
    assert found.mask.sum(-1).unique().tolist() == [12], "the teacher knows 12 neighbours, 20 are asked for"
    with pytest.raises(InputError, match="no token state"):
        Teacher(network, "decoder.0.message")(batch.x_0, batch.c)


def test_values_are_found_on_another_graph() -> None:
    """A slow loop over edges says the same; what is not on the first graph is unknown."""
    batch = data().batch([2, 0])
    jitter = torch.randn(batch.c.coords.shape, generator=torch.Generator().manual_seed(0)) * 0.8
    moved = NamedBackbone(batch.c.coords + jitter, batch.c.mask, batch.c.position, batch.c.chain)
    there, here = edges_of(batch.c, 8), edges_of(moved, 6)
    z = torch.randn(2, 30, 8, 3)
    found = on_edges(Representation(z, there.mask), there, here)
    assert found.mask is not None
    missed = 0
    for b in range(2):
        for i in range(30):
            for slot in range(6):
                other = int(here.neighbours[b, i, slot])
                places = [
                    p
                    for p in range(8)
                    if there.mask[b, i, p] and here.mask[b, i, slot] and int(there.neighbours[b, i, p]) == other
                ]
                assert bool(found.mask[b, i, slot]) == bool(places)
                missed += bool(here.mask[b, i, slot]) and not places
                if places:
                    assert torch.equal(found.z[b, i, slot], z[b, i, places[0]])
    assert missed > 0, "the test needs an edge that is on one graph alone"
    assert isinstance(there, Edges)


def test_nearly_every_edge_of_a_jittered_backbone_is_stored(reed_data: Path) -> None:
    """With the recipe's jitter of 0.1 angstrom, and the margin that caches keep."""
    from reed_protein.dataset import ChainSet
    from reed_protein.latents.spec import MARGIN

    chains = ChainSet.read(reed_data / "protein" / "backbones_valid.npz")
    batch = CleanChains(chains).batch(range(0, 90, 9))
    noise = 0.1 * torch.randn(batch.c.coords.shape, generator=torch.Generator().manual_seed(0))
    moved = NamedBackbone(batch.c.coords + noise, batch.c.mask, batch.c.position, batch.c.chain)
    there, here = edges_of(batch.c, 16 + MARGIN), edges_of(moved, 16)
    found = on_edges(Representation(torch.zeros(*there.mask.shape, 1), there.mask), there, here)
    assert found.mask is not None
    assert (found.mask.sum() / here.mask.sum()).item() > 0.9995
    none = edges_of(batch.c, 16)
    assert (
        on_edges(Representation(torch.zeros(*none.mask.shape, 1), none.mask), none, here).mask.sum() < found.mask.sum()
    )


def test_edges_between_chains_are_edges() -> None:
    batch = CleanChains(chain_set([complex_of(14, 17)])).batch([0])
    edges = edges_of(batch.c, 12)
    assert (batch.c.chain[0][edges.neighbours[0]] != batch.c.chain[0][:, None]).any()

"""Encoders of molecules: symmetries to 1e-9, slow references, files of arrays and what is refused."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from molecule.molecule_sets import clean_batch, make_set, molecules, padded, reordered, turned
from rdkit import Chem
from reed_core.errors import InputError
from reed_core.latent import Representation
from reed_core.representation import Encoder
from reed_core.train import Batch
from reed_molecule.encoders import (
    ArrayEncoder,
    BondGraphConfig,
    BondGraphEncoder,
    CleanMolecules,
    EquivariantConfig,
    EquivariantEncoder,
    NetworkEncoder,
    PairClasses,
    RdkitEncoder,
    Standardised,
    SymmetryFunctions,
)
from reed_molecule.encoders.pairs import EDGES, FAR
from reed_molecule.encoders.symmetry import START
from reed_molecule.vocabulary import QM9
from safetensors.numpy import save_file

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
ITEMS = (2, 0, 3)  # benzene, methanol, acetate


def equivariant(level: str = "token") -> NetworkEncoder:
    pytest.importorskip("e3nn")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)  # constants of e3nn are made in the default precision
    torch.manual_seed(0)
    try:
        module = EquivariantEncoder(EquivariantConfig(elements=QM9.symbols, width=8, layers=2)).double()
    finally:
        torch.set_default_dtype(before)
    return NetworkEncoder(module, level)


def bond_graph(level: str = "token") -> NetworkEncoder:
    pytest.importorskip("torch_geometric")
    torch.manual_seed(0)
    sizes = BondGraphConfig(elements=QM9.symbols, charges=QM9.charges, width=12, layers=2)
    return NetworkEncoder(BondGraphEncoder(sizes).double(), level)


MADE: dict[str, Callable[[], Encoder]] = {
    "e3nn": equivariant,
    "e3nn global": lambda: equivariant("global"),
    "bond_graph": bond_graph,
    "bond_graph global": lambda: bond_graph("global"),
    "symmetry": lambda: SymmetryFunctions(QM9.symbols, 6, 3),
    "symmetry global": lambda: SymmetryFunctions(QM9.symbols, 6, 3, level="global"),
    "graph": lambda: PairClasses("graph"),
    "bonds": lambda: PairClasses("bonds"),
    "distance": lambda: PairClasses("distance"),
    "rdkit": lambda: RdkitEncoder("descriptors"),
    "morgan": lambda: RdkitEncoder("morgan"),
}


def values(encoder: Encoder, batch: Batch) -> Representation:
    return encoder(batch.x_0, batch.c, batch.mask)


@pytest.mark.parametrize("name", MADE)
def test_symmetries_and_padding(name: str) -> None:
    encoder, batch = MADE[name](), clean_batch(ITEMS)
    plain = values(encoder, batch)
    n = batch.mask.shape[1]
    for reflect in (False, True):
        again = values(encoder, turned(batch, reflect))
        torch.testing.assert_close(again.z, plain.z, **CLOSE)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    mixed, wide = values(encoder, reordered(batch, order)), values(encoder, padded(batch, 3))
    if encoder.level == "token":
        torch.testing.assert_close(mixed.z, plain.z[:, order], **CLOSE)
        torch.testing.assert_close(wide.z[:, :n], plain.z, **CLOSE)
        assert torch.equal(plain.mask, batch.mask)
        assert not wide.mask[:, n:].any()
        assert not wide.z[:, n:].any()
    elif encoder.level == "pair":
        assert torch.equal(mixed.z, plain.z[:, order][:, :, order])
        assert torch.equal(wide.z[:, :n, :n], plain.z)
        assert (wide.z[:, n:] == -1).all()
        assert torch.equal(plain.z, plain.z.transpose(1, 2))
    else:
        torch.testing.assert_close(mixed.z, plain.z, **CLOSE)
        torch.testing.assert_close(wide.z, plain.z, **CLOSE)
    assert plain.z.shape[-1] == encoder.dim or encoder.level == "pair"
    alone = values(encoder, clean_batch(ITEMS[1:2]))  # the companions of a batch change nothing
    row = plain.z[1, : alone.z.shape[1]] if encoder.level == "token" else plain.z[1]
    if encoder.level != "pair":
        torch.testing.assert_close(row, alone.z[0], **CLOSE)


def test_the_network_moves_atoms_as_the_molecule_turns() -> None:
    module, batch = equivariant().module, clean_batch(ITEMS)
    types = torch.where(batch.mask, batch.x_0["numbers"] % 5, 0)
    far = turned(batch, reflect=True)
    here, there = (module({"coords": one.x_0["coords"], "types": types}, torch.zeros(3)) for one in (batch, far))
    moved, also = (said["coords"] - one.x_0["coords"] for said, one in ((here, batch), (there, far)))
    turn = torch.linalg.lstsq(
        batch.x_0["coords"][0] - batch.x_0["coords"][0].mean(0), far.x_0["coords"][0] - far.x_0["coords"][0].mean(0)
    ).solution
    assert float(moved.abs().max()) > 1e-3
    torch.testing.assert_close(also, moved @ turn, **CLOSE)
    torch.testing.assert_close(there["types"], here["types"], **CLOSE)


def test_networks_see_what_they_read() -> None:
    """Geometry for one, bonds for the other; neither sees what the other reads."""
    batch = clean_batch(ITEMS)
    bonds = batch.x_0["bonds"].clone()
    bonds[0, 0, 1] = bonds[0, 1, 0] = 1  # benzene with one single bond
    stretched = {**batch.x_0, "coords": 1.1 * batch.x_0["coords"]}
    recast = {**batch.x_0, "bonds": bonds}
    for encoder, sees, ignores in ((equivariant(), stretched, recast), (bond_graph(), recast, stretched)):
        plain = values(encoder, batch).z
        assert float((encoder(sees, batch.c, batch.mask).z - plain).abs().max()) > 1e-3
        assert torch.equal(encoder(ignores, batch.c, batch.mask).z, plain)


def test_a_network_is_read_after_a_layer_and_knows_its_elements() -> None:
    module, batch = bond_graph().module, clean_batch(ITEMS)
    first, last = (values(NetworkEncoder(module, "token", layer), batch).z for layer in (1, 2))
    assert not torch.allclose(first, last)
    assert NetworkEncoder(module, "token", 1).fingerprint != NetworkEncoder(module, "token", 2).fingerprint
    with pytest.raises(InputError, match="choose 1"):
        NetworkEncoder(module, "token", 3)
    few = BondGraphEncoder(BondGraphConfig(elements=("H", "C"), width=4, layers=1))
    with pytest.raises(InputError, match="atomic number 8"):
        values(NetworkEncoder(few), batch)


def slow_symmetry(batch: Batch, row: int, radial: int, angular: int, cutoff: float) -> torch.Tensor:
    """Sums over neighbours and pairs of neighbours, as the formulas say."""
    size = int(batch.mask[row].sum())
    x, numbers = batch.x_0["coords"][row, :size], batch.x_0["numbers"][row, :size].tolist()
    kinds = [QM9.type_of(number) for number in numbers]
    count = len(QM9.symbols)

    def shells(distance: float, functions: int) -> list[float]:
        if distance >= cutoff:
            return [0.0] * functions
        gap = (cutoff - START) / (functions - 1)
        fade = 0.5 * (math.cos(math.pi * distance / cutoff) + 1)
        return [math.exp(-0.5 * ((distance - START - k * gap) / gap) ** 2) * fade for k in range(functions)]

    out = []
    for i in range(size):
        one, R = [float(kinds[i] == kind) for kind in range(count)], torch.zeros(count, radial).double()
        A = torch.zeros(2, count, count, angular).double()
        others = [j for j in range(size) if j != i]
        for j in others:
            to_j = x[j] - x[i]
            R[kinds[j]] += torch.tensor(shells(float(to_j.norm()), radial)).double()
            for k in others:
                to_k = x[k] - x[i]
                cosine = float(to_j @ to_k / to_j.norm() / to_k.norm())
                g = torch.tensor(shells(float(to_j.norm()), angular)).double()
                g = g * torch.tensor(shells(float(to_k.norm()), angular)).double()
                A[0, kinds[j], kinds[k]] += g * cosine
                A[1, kinds[j], kinds[k]] += g * (1.5 * cosine**2 - 0.5)
        upper = [A[part, e, f] for part in (0, 1) for e in range(count) for f in range(e, count)]
        out.append(torch.cat([torch.tensor(one).double(), R.flatten(), *upper]))
    return torch.stack(out)


def test_symmetry_functions_against_sums() -> None:
    batch = clean_batch(ITEMS)
    found = values(SymmetryFunctions(QM9.symbols, 5, 3, 3.5), batch).z
    for row in range(len(ITEMS)):
        expected = slow_symmetry(batch, row, 5, 3, 3.5)
        torch.testing.assert_close(found[row, : len(expected)], expected, rtol=1e-6, atol=1e-6)
    assert SymmetryFunctions(QM9.symbols, 5, 0, 3.5).dim == 5 + 25
    with pytest.raises(InputError, match="radial 1"):
        SymmetryFunctions(QM9.symbols, 1)


def test_pair_classes_against_rdkit() -> None:
    batch = clean_batch(ITEMS)
    graph, bonds, distance = (values(PairClasses(what), batch) for what in ("graph", "bonds", "distance"))
    for row, item in enumerate(ITEMS):
        mol = molecules()[item].to_rdkit()
        size = mol.GetNumAtoms()
        exact = torch.from_numpy(np.minimum(Chem.GetDistanceMatrix(mol), FAR)).long() - 1
        assert torch.equal(graph.z[row, :size, :size], exact.fill_diagonal_(-1))
        assert torch.equal(bonds.z[row, :size, :size].clamp(min=0), batch.x_0["bonds"][row, :size, :size])
        apart = torch.cdist(*[batch.x_0["coords"][row, :size]] * 2)
        bins = (apart[..., None] >= torch.tensor(EDGES)).sum(-1)
        assert torch.equal(distance.z[row, :size, :size], bins.fill_diagonal_(-1))
    assert int(graph.z.max()) < PairClasses("graph").dim
    two = clean_batch([0])
    two.x_0["bonds"].zero_()  # nothing is joined
    assert set(values(PairClasses("graph"), two).z.unique().tolist()) == {-1, FAR - 1}


def test_descriptors_and_fingerprints() -> None:
    batch = clean_batch(range(12))
    figures, counts = (values(RdkitEncoder(what), batch) for what in ("descriptors", "morgan"))
    assert figures.mask.all()
    assert figures.z.isfinite().all()
    assert torch.equal(figures.z[0], figures.z[7])  # CO and OC are one molecule
    assert not torch.equal(counts.z[0], counts.z[6])
    assert (counts.z >= 0).all()
    odd = clean_batch([0])
    odd.c.molecules[0].bonds[0, 2] = 3  # a carbon of six bonds
    try:
        assert not values(RdkitEncoder(), odd).mask.any()
    finally:
        odd.c.molecules[0].bonds[0, 2] = 1


def test_standardised_values(tmp_path: Path) -> None:
    data = CleanMolecules(make_set(tmp_path))
    encoder = Standardised(SymmetryFunctions(QM9.symbols, 5, 2), data)
    batch = data.batch(range(len(data)))
    z = values(encoder, batch).z[batch.mask]
    varies = z.abs().amax(0) > 0
    assert varies.sum() > 20
    torch.testing.assert_close(z[:, varies].double().mean(0), torch.zeros(int(varies.sum())).double(), atol=0.2, rtol=0)
    assert float(z.abs().max()) <= 5.0
    inner = z[:, (z.abs() < 5.0).all(0) & varies]
    torch.testing.assert_close(inner.var(0, correction=0), torch.ones(inner.shape[1]), rtol=1e-3, atol=1e-3)
    assert encoder.fingerprint == Standardised(SymmetryFunctions(QM9.symbols, 5, 2), data).fingerprint


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_arrays(tmp_path: Path, kind: str) -> None:
    batch, generator = clean_batch(ITEMS), np.random.default_rng(0)
    names = [molecule.name for molecule in batch.c.molecules]
    sizes = [len(molecule) for molecule in batch.c.molecules]
    rows = [generator.normal(size=(size, 4)).astype(np.float32) for size in sizes]

    def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
        if kind == "npz":
            np.savez(path, **arrays)
        else:
            save_file(arrays, path)

    for item, molecule, values_ in zip(ITEMS, batch.c.molecules, rows, strict=True):
        save(tmp_path / f"m-{item}.{kind}", {"z": values_, "numbers": molecule.numbers, "w": values_.mean(0)})
    pattern = str(tmp_path / f"m-{{index}}.{kind}")
    found = values(ArrayEncoder(pattern, "z", 4), batch)
    assert torch.equal(found.mask, batch.mask)
    for row, size in enumerate(sizes):
        assert np.array_equal(found.z[row, :size].numpy(), rows[row])
    assert values(ArrayEncoder(pattern, "w", 4, "global"), batch).z.shape == (3, 4)

    every = molecules()
    ends = np.cumsum([0, *(len(one) for one in every)])
    packed = {"z": generator.normal(size=(ends[-1], 4)), "offsets": ends, "w": generator.normal(size=(len(every), 4))}
    save(tmp_path / f"all.{kind}", packed)
    whole = str(tmp_path / f"all.{kind}")
    found = values(ArrayEncoder(whole, "z", 4), batch)
    assert np.allclose(found.z[1, : sizes[1]].numpy(), packed["z"][ends[0] : ends[1]].astype(np.float32))
    assert np.allclose(values(ArrayEncoder(whole, "w", 4, "global"), batch).z.numpy(), packed["w"][list(ITEMS)])

    light = [molecule.numbers > 1 for molecule in batch.c.molecules]
    for item, values_, heavy, molecule in zip(ITEMS, rows, light, batch.c.molecules, strict=True):
        save(tmp_path / f"h-{item}.{kind}", {"z": values_[heavy], "numbers": molecule.numbers[heavy]})
        save(tmp_path / f"x-{item}.{kind}", {"z": values_, "numbers": molecule.numbers[::-1].copy()})
    heavy_only = str(tmp_path / f"h-{{index}}.{kind}")
    found = values(ArrayEncoder(heavy_only, "z", 4, atoms="heavy"), batch)
    assert torch.equal(found.mask, batch.mask & (batch.x_0["numbers"] > 1))
    with pytest.raises(InputError, match=r'without hydrogen.*atoms = "heavy"'):
        values(ArrayEncoder(heavy_only, "z", 4), batch)
    with pytest.raises(InputError, match='with hydrogen: set atoms = "all"'):
        values(ArrayEncoder(pattern, "z", 4, atoms="heavy"), batch)
    with pytest.raises(InputError, match="in another order"):
        values(ArrayEncoder(str(tmp_path / f"x-{{index}}.{kind}"), "z", 4), batch)
    with pytest.raises(InputError, match=r"expected \[n, 5\]"):
        values(ArrayEncoder(pattern, "z", 5), batch)
    with pytest.raises(InputError, match="holds no array 'y' but"):
        values(ArrayEncoder(pattern, "y", 4), batch)
    with pytest.raises(InputError, match=r"no file .* for molecule 2 "):
        values(ArrayEncoder(str(tmp_path / "{name}.npz"), "z", 4), batch)
    (tmp_path / f"bad.{kind}").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="cannot be read"):
        values(ArrayEncoder(str(tmp_path / f"bad.{kind}"), "z", 4), batch)
    assert names[1] == "CO"

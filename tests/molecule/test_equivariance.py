"""What must not depend on the frame: network, loss and sampler under rotation, reflection, translation, permutation and
padding, at random weights and at those that come with the package; around a given part where the network reads parts.

Each question is asked twice: of some molecules, and of the moved ones with the noise moved alike. Layers, shapes and
controls of the random network are in test_network.py, the processes without a network in test_process.py.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from molecule.metric_cases import made
from reed_core import presets
from reed_core.hub import from_pretrained
from reed_core.noise import NoiseSource
from reed_molecule.condition import Condition
from reed_molecule.dataset import collate
from reed_molecule.generate import BUNDLED
from reed_molecule.inpaint import chain
from reed_molecule.model import MoleculeModel, Remembering, new_config
from reed_molecule.network import NetworkConfig
from reed_molecule.part import Part
from reed_molecule.process import Pairs, centre
from reed_molecule.vocabulary import QM9

NAMES = ["random", "reads parts", *sorted(path.parent.name for path in BUNDLED.glob("*/model.safetensors"))]
LIMITS = {"float64": 1e-9, "float32": 1e-4}
MOVES = ("rotation", "reflection", "translation", "permutation", "padding")
EQUAL, SMALLER = ("CC(=O)N", "c1ccoc1"), ("CC(=O)N", "CO")  # 9 and 9 atoms; 9 and 6
N, MORE, STEPS = 9, 4, 4
SMALL = NetworkConfig(width=32, vectors=8, pairs=16, blocks=3, heads=4, radial=8, self_condition=True)
ORDER = torch.tensor([3, 0, 5, 8, 1, 7, 4, 2, 6])
Fields = dict[str, torch.Tensor]


@cache
def model(name: str, dtype: str) -> MoleculeModel:
    """In evaluation mode."""
    if name in ("random", "reads parts"):
        torch.manual_seed(0)
        sizes = SMALL.model_copy(update={"parts": name == "reads parts"})
        net = MoleculeModel(new_config(QM9, 1.4, (N,), sizes, "uniform"))
        for parameter in net.parameters():  # weights that start at 0 would hide what they multiply
            parameter.data += 0.1 * torch.randn(parameter.shape)
    else:
        net = from_pretrained(MoleculeModel, BUNDLED / name)
    return net.to(getattr(torch, dtype)).eval()


class Moved(NoiseSource):
    """The noise of moved molecules: vectors turned; rows of atoms, and of unordered pairs, in another order."""

    def __init__(self, seed: int, count: int, turn: torch.Tensor | None = None, order: torch.Tensor | None = None):
        super().__init__(seed, range(count))
        self.turn, self.order = turn, order

    def uniform(self, shape: Sequence[int]) -> torch.Tensor:
        drawn = super().uniform(shape)
        if self.order is None or not shape:
            return drawn
        atoms = len(self.order)
        rows = self.order if shape[0] == atoms else self._pairs(atoms)
        assert shape[0] in (atoms, atoms * (atoms - 1) // 2)
        return drawn[:, rows]

    def normal(self, shape: Sequence[int]) -> torch.Tensor:
        drawn = super().normal(shape)
        return drawn if self.turn is None else drawn.double() @ self.turn.T

    def _pairs(self, atoms: int) -> torch.Tensor:
        """For each pair of the new order, its place among those of the old one."""
        at, places = Pairs.of(atoms, torch.device("cpu")), torch.zeros(atoms, atoms, dtype=torch.long)
        places[at.first, at.second] = places[at.second, at.first] = torch.arange(len(at.first))
        assert self.order is not None
        return places[self.order[at.first], self.order[at.second]]


class Move:
    """One of `MOVES`, for states and noise."""

    def __init__(self, name: str) -> None:
        self.name = name
        matrix = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
        sign = {"rotation": 1.0, "reflection": -1.0}.get(name)
        self.turn = None if sign is None else matrix * (sign * torch.linalg.det(matrix).sign())
        self.order = ORDER if name == "permutation" else None

    def noise(self, seed: int) -> NoiseSource:
        return Moved(seed, 2, self.turn, self.order)

    def state(self, x: Fields, shift: float = 2.5) -> Fields:
        """The moved molecules; what padding adds holds nonsense."""
        x = dict(x)
        if self.turn is not None:
            x["coords"] = x["coords"] @ self.turn.to(x["coords"]).T
        if self.name == "translation":
            x["coords"] = x["coords"] + shift
        if self.order is not None:
            x = {k: v[:, ORDER][:, :, ORDER] if k == "bonds" else v[:, ORDER] for k, v in x.items()}
        return {name: widened(name, value) for name, value in x.items()} if self.name == "padding" else x

    def answer(self, x: Fields) -> Fields:
        """What is then expected of a prediction or a sample, which knows no place."""
        return self.state(x, shift=0.0)

    def told(self, mask: torch.Tensor, x_0: Fields | None = None) -> Condition:
        """Which atoms exist; of the (unmoved) molecules x_0 the first three atoms are given."""
        kept = torch.arange(N).expand_as(mask) < 3
        if self.order is not None:
            kept = kept[:, ORDER]
        if self.name == "padding":
            mask, kept = widened("mask", mask), widened("mask", kept)
        told = Condition(mask)
        return told if x_0 is None else replace(told, part=Part.kept(self.state(x_0), kept, told.pairs))


def widened(name: str, value: torch.Tensor) -> torch.Tensor:
    b = len(value)
    shape = (b, N + MORE, N + MORE, *value.shape[3:]) if name == "bonds" else (b, N + MORE, *value.shape[2:])
    wide = torch.zeros(shape, dtype=value.dtype) if name == "mask" else torch.full(shape, 3, dtype=value.dtype)
    wide[(slice(None), slice(N), slice(N))[: 3 if name == "bonds" else 2]] = value
    return wide


def molecules(net: MoleculeModel, smiles: tuple[str, ...]) -> tuple[Fields, torch.Tensor]:
    """Real molecules as a state, and where their atoms are."""
    x, mask = collate([made(one) for one in smiles], net.vocabulary)
    coords = x["coords"].to(next(net.parameters())) / net.config.scale
    return {**x, "coords": centre(coords, mask["coords"])}, mask["coords"]


def given(net: MoleculeModel, x_0: Fields) -> Fields | None:
    """The molecules, if a part of them is to be given."""
    return x_0 if net.config.network.parts else None


def same(found: Fields, expected: Fields, told: Condition, most: float) -> None:
    """Equal wherever something exists."""
    for name, mask in told.masks().items():
        gap = (found[name].double() - expected[name].double()).abs()[mask]
        assert gap.max() <= most * (1.0 + float(expected[name][mask].double().abs().max())), name


cases = pytest.mark.parametrize("move", MOVES)
dtypes = pytest.mark.parametrize("dtype", list(LIMITS))
names = pytest.mark.parametrize("name", NAMES)
STILL = Move("nothing")


def smiles_of(move: str) -> tuple[str, ...]:
    """A permutation of all places needs molecules of one size; elsewhere one is smaller than its batch."""
    return EQUAL if move == "permutation" else SMALLER


@names
@dtypes
@cases
def test_network(name: str, dtype: str, move: str) -> None:
    net, moved = model(name, dtype), Move(move)
    x_0, mask = molecules(net, smiles_of(move))
    t = torch.tensor([0.3, 0.7]).to(x_0["coords"])
    x = net.process.corrupt(x_0, t, NoiseSource(1, range(2)), Condition(mask).masks()).x_t
    still, told = (one.told(mask, given(net, x_0)) for one in (STILL, moved))
    with torch.no_grad():
        guess = net(x, t, still)
        expected = net(x, t, still, guess)
        found = net(moved.state(x), t, told, moved.answer(guess))
    same(found, moved.answer(expected), told, LIMITS[dtype])


@names
@dtypes
@cases
def test_loss(name: str, dtype: str, move: str) -> None:
    """Loss and gradient: what a training step sees is the same."""
    net, moved = model(name, dtype), Move(move)
    x_0, mask = molecules(net, smiles_of(move))
    objective = presets.none(net.process)
    values, slopes = [], []
    for state, told, noise in (
        (x_0, STILL.told(mask, given(net, x_0)), NoiseSource(1, range(2))),
        (moved.state(x_0), moved.told(mask, given(net, x_0)), moved.noise(1)),
    ):
        due = told.masks() if told.part is None else told.part.unknown(told.masks())
        drawn = objective.draw(state, noise, c=told, mask=due)
        loss = objective.loss(net, drawn)
        values.append(loss.denoising.detach())
        slopes.append(torch.autograd.grad(loss.total, list(net.parameters()), allow_unused=True))
    torch.testing.assert_close(values[1], values[0], rtol=LIMITS[dtype], atol=LIMITS[dtype])
    pairs = [(new, old) for new, old in zip(slopes[1], slopes[0], strict=True) if old is not None]
    largest = max(float(old.abs().max()) for _, old in pairs)
    assert len(pairs) > 10
    assert max(float((new - old).abs().max()) for new, old in pairs) <= 10 * LIMITS[dtype] * (1.0 + largest)


@names
@dtypes
@cases
def test_sampler(name: str, dtype: str, move: str) -> None:
    """The same molecules come out, moved, with equal elements, charges and bonds."""
    net, moved = model(name, dtype), Move(move)
    x_0, mask = molecules(net, smiles_of(move))
    ends = []
    for told, sources, still in (
        (STILL.told(mask, given(net, x_0)), [NoiseSource(seed, range(2)) for seed in (5, 6)], True),
        (moved.told(mask, given(net, x_0)), [moved.noise(seed) for seed in (5, 6)], False),
    ):
        like = x_0 if still else moved.answer(x_0)
        x = net.process.prior(like, sources[0], told.masks())
        if move == "translation" and not still:
            x = {**x, "coords": x["coords"] + 2.5}
        ends.append(chain(net.process, Remembering(net), x, STEPS, sources[1], told))
    told = moved.told(mask)
    same(dict(ends[1]), moved.answer(dict(ends[0])), told, LIMITS[dtype])
    for field in ("types", "charges", "bonds"):
        exists = told.masks()[field]
        assert torch.equal(ends[1][field][exists], moved.answer(dict(ends[0]))[field][exists])

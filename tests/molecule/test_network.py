"""Padding, smoothness and taps of the molecular denoiser; how it moves with a molecule is in test_equivariance.py."""

from collections.abc import Callable

import pytest
import torch
from reed_core.denoiser import Tap
from reed_core.errors import InputError
from reed_core.testing import check_denoiser
from reed_molecule.condition import Condition
from reed_molecule.network import Denoiser, NetworkConfig
from reed_molecule.vocabulary import BONDS

SMALL = NetworkConfig(types=4, charges=3, width=32, vectors=8, pairs=16, blocks=3, heads=4, radial=8)
DTYPES = [(torch.float64, 1e-9), (torch.float32, 1e-4)]
Fields = dict[str, torch.Tensor]


def network(dtype: torch.dtype = torch.float64, trained: bool = True) -> Denoiser:
    torch.manual_seed(0)
    net = Denoiser(SMALL)
    if trained:  # weights that start at 0 would hide what they multiply
        for parameter in net.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return net.to(dtype).eval()


def molecules(n: int = 6, b: int = 2, dtype: torch.dtype = torch.float64) -> Fields:
    generator = torch.Generator().manual_seed(1)
    upper = torch.randint(0, BONDS, (b, n, n), generator=generator).triu(1)
    return {
        "coords": torch.randn(b, n, 3, generator=generator, dtype=torch.float64).to(dtype),
        "types": torch.randint(0, 5, (b, n), generator=generator),
        "charges": torch.randint(0, 3, (b, n), generator=generator),
        "bonds": upper + upper.transpose(1, 2),
    }


def times(b: int = 2) -> torch.Tensor:
    return torch.linspace(0.2, 0.8, b)


def same(found: Fields, expected: Fields, most: float, mask: torch.Tensor | None = None) -> None:
    for name, value in expected.items():
        gap = (found[name] - value).abs()
        if mask is not None:
            gap = gap[Condition(mask).pairs if name == "bonds" else mask]
        assert gap.max() <= most * (1.0 + value.abs().max()), name


def orthogonal(determinant: float) -> torch.Tensor:
    matrix = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64))[0]
    return matrix * (determinant * torch.linalg.det(matrix).sign())


@pytest.mark.parametrize(("dtype", "most"), DTYPES)
def test_padding_is_never_read(dtype: torch.dtype, most: float) -> None:
    net, x, t = network(dtype), molecules(dtype=dtype), times().to(dtype)
    expected = net(x, t)
    padded = molecules(n=9, dtype=dtype)
    mask = (torch.arange(9) < 6).expand(2, 9)
    padded["coords"] = torch.full_like(padded["coords"], torch.nan)
    padded["types"], padded["bonds"] = padded["types"] + 77, padded["bonds"] + 77
    for name, value in x.items():
        padded[name][(slice(None), slice(6), slice(6)) if name == "bonds" else (slice(None), slice(6))] = value
    found = net(padded, t, Condition(mask))
    assert all(bool(value.isfinite().all()) for value in found.values())
    assert not found["coords"][:, 6:].any()
    cut = {k: v[:, :6, :6] if k == "bonds" else v[:, :6] for k, v in found.items()}
    same(cut, expected, most)


def test_what_is_predicted_is_centred_symmetric_and_moves() -> None:
    found = network()(molecules(), times().double())
    assert found["coords"].sum(1).abs().max() < 1e-9
    assert found["coords"].abs().max() > 1e-3
    torch.testing.assert_close(found["bonds"], found["bonds"].transpose(1, 2))
    assert found["types"].shape == (2, 6, 4)
    assert found["charges"].shape == (2, 6, 3)


@pytest.mark.parametrize("arrange", ["coincident", "collinear", "single"])
def test_gradients_are_finite(arrange: str) -> None:
    x = molecules(n=1 if arrange == "single" else 4)
    if arrange == "coincident":
        x["coords"] = torch.zeros_like(x["coords"])
    if arrange == "collinear":
        x["coords"] = x["coords"] * torch.tensor([1.0, 0.0, 0.0])
    x["coords"].requires_grad_()
    net = network()
    said = net(x, times().double())
    sum(value.square().sum() for value in said.values()).backward()
    slopes = [x["coords"].grad, *(parameter.grad for parameter in net.parameters() if parameter.grad is not None)]
    assert all(bool(slope.isfinite().all()) for slope in slopes if slope is not None)
    assert not said["coords"].any() if arrange == "single" else True


def test_every_parameter_is_used() -> None:
    net, x = network(), molecules()
    sum(value.square().sum() for value in net(x, times().double()).values()).backward()
    unused = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    assert unused == []


@pytest.mark.parametrize("change", ["types", "charges", "bonds", "coords"])
def test_every_field_is_read_by_every_head(change: str) -> None:
    net, x, t = network(), molecules(), times().double()
    before = net(x, t)
    other: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "coords": lambda value: 1.2 * value,
        "types": lambda value: (value + 1) % 4,
        "charges": lambda value: (value + 1) % 3,
        "bonds": lambda value: (value + 1) % BONDS,
    }
    after = net({**x, change: other[change](x[change])}, t)
    assert all((after[name] - before[name]).abs().max() > 1e-6 for name in before)


def test_taps_read_invariant_node_states() -> None:
    net, x, t = network(), molecules(), times().double()
    turn = orthogonal(-1.0)
    with Tap(net, ["blocks.1", "blocks.2:0"]) as tap:
        net(x, t)
        one, two = tap["blocks.1"], tap["blocks.2:0"]
    assert one.shape == two.shape == (2, 6, SMALL.width)
    with Tap(net, ["blocks.1"]) as tap:
        net({**x, "coords": x["coords"] @ turn.T}, t)
        assert (tap["blocks.1"] - one).abs().max() < 1e-9


def test_the_network_is_a_denoiser() -> None:
    told = Condition(torch.tensor([[True] * 6, [True] * 4 + [False] * 2]))

    def take(c: Condition, index: slice) -> Condition:
        return Condition(c.mask[index])

    check_denoiser(network(), molecules(), times().double(), told, told.masks(), take=take)


def test_it_runs_in_bfloat16() -> None:
    net, x, t = network(torch.float32), molecules(dtype=torch.float32), times()
    with torch.autocast("cpu", torch.bfloat16):
        said = net(x, t)
        sum(value.float().square().sum() for value in said.values()).backward()
    for name, value in net(x, t).items():
        assert (said[name] - value).abs().max() < 0.1 * (1.0 + value.abs().max())


def test_missing_fields_are_named() -> None:
    with pytest.raises(InputError, match="expected the fields"):
        network()({"coords": torch.zeros(1, 2, 3)}, torch.zeros(1))


def test_a_guess_is_read_and_turns_with_the_molecule() -> None:
    torch.manual_seed(0)
    net = Denoiser(SMALL.model_copy(update={"self_condition": True})).double().eval()
    x, t, turn = molecules(), times().double(), orthogonal(-1.0)
    first = net(x, t)
    second = net(x, t, None, first)
    assert all((second[name] - first[name]).abs().max() > 1e-6 for name in first)
    turned = {**first, "coords": first["coords"] @ turn.T}
    moved = net({**x, "coords": x["coords"] @ turn.T}, t, None, turned)
    same(moved, {**second, "coords": second["coords"] @ turn.T}, 1e-9)


def test_half_of_the_training_batches_see_a_guess() -> None:
    torch.manual_seed(0)
    net = Denoiser(SMALL.model_copy(update={"self_condition": True})).double().train()
    x, t, calls = molecules(n=3), times().double(), []
    net.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    for _ in range(60):
        net(x, t)
    assert 75 <= len(calls) <= 105
    said = net(x, t)
    assert all(value.requires_grad for value in said.values())

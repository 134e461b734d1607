"""`Tap` reads hidden states of any module by path and leaves the module as it was."""

import re
from collections.abc import Iterator

import pytest
import torch
from reed_core.denoiser import Denoiser, Hook, Hooked, Tap
from reed_core.errors import InputError
from torch import Tensor, nn


class Block(nn.Module):
    """Returns a tuple, as attention modules do: a state, a pair state, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        state = torch.tanh(self.inner(x))
        return state, state[:, :, None] - state[:, None], 3


class Network(nn.Module):
    def __init__(self, breaks: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.unused = nn.Linear(4, 4)
        self.shared = nn.Tanh()
        self.breaks = breaks

    def forward(self, x: Tensor, t: Tensor, c: object = None) -> Tensor:
        for number, block in enumerate(self.blocks):
            x = block(self.shared(x))[0]
            if self.breaks and number == 1:
                raise ZeroDivisionError
        return x


def hooks(module: nn.Module) -> list[object]:
    return [hook for part in module.modules() for hook in (*part._forward_hooks, *part._forward_pre_hooks)]


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))


T = torch.zeros(2)


def test_a_network_is_a_denoiser(network: Network) -> None:
    assert isinstance(network, Denoiser)


def test_a_tap_reads_what_the_modules_return(network: Network, x: Tensor) -> None:
    with Tap(network, ["blocks.0", "blocks.1.inner", "blocks.2:1", "blocks.1:0", ""]) as tap:
        out = network(x, T)
    first = network.blocks[0](torch.tanh(x))[0]
    second = network.blocks[1](torch.tanh(first))
    third = network.blocks[2](torch.tanh(second[0]))
    assert torch.equal(tap["blocks.0"], first)
    assert torch.equal(tap["blocks.1.inner"], network.blocks[1].inner(torch.tanh(first)))
    assert torch.equal(tap["blocks.1:0"], second[0])
    assert torch.equal(tap["blocks.2:1"], third[1])
    assert torch.equal(tap[""], out)


def test_a_module_that_runs_often_leaves_its_last_output(network: Network, x: Tensor) -> None:
    with Tap(network, ["shared", "blocks.1"]) as tap:
        network(x, T)
    assert torch.equal(tap["shared"], torch.tanh(tap["blocks.1"]))


def test_gradients_flow_through_what_was_read(network: Network, x: Tensor) -> None:
    with Tap(network, ["blocks.1"]) as tap:
        network(x, T)
    tap["blocks.1"].square().sum().backward()
    assert all(p.grad is not None for block in network.blocks[:2] for p in block.parameters())
    assert all(p.grad is None for p in network.blocks[2].parameters())


def test_the_module_is_as_before(network: Network, x: Tensor) -> None:
    before, keys, names = network(x, T), list(network.state_dict()), [n for n, _ in network.named_modules()]
    with Tap(network, ["blocks.1", "blocks.2"]) as tap:
        assert len(hooks(network)) == 2
        assert torch.equal(network(x, T), before)
    assert hooks(network) == []
    kept = tap["blocks.1"]
    network(x + 1, T)
    assert tap["blocks.1"] is kept
    assert (list(network.state_dict()), [n for n, _ in network.named_modules()]) == (keys, names)


def test_a_tap_entered_again_forgets_what_it_read(network: Network, x: Tensor) -> None:
    tap = Tap(network, ["blocks.1"])
    with tap:
        network(x, T)
    first = tap["blocks.1"]
    with tap:
        network(x + 1, T)
    assert not torch.equal(tap["blocks.1"], first)
    with tap:
        pass
    with pytest.raises(InputError, match=r"'blocks.1' was not run"):
        tap["blocks.1"]
    assert hooks(network) == []


def test_hooks_act_in_their_order_and_before_or_after(network: Network, x: Tensor) -> None:
    block = network.blocks[1]
    changes = [
        Hook(block, lambda module, inputs: (inputs[0] + 1,), before=True),
        Hook(block, lambda module, inputs: (inputs[0] * 2,), before=True),
        Hook(block, lambda module, inputs, output: (output[0] + 1, *output[1:])),
        Hook(block, lambda module, inputs, output: (output[0] * 2, *output[1:])),
    ]
    with Hooked(changes):
        changed = block(x)[0]
    assert torch.equal(changed, 2 * (block(2 * (x + 1))[0] + 1))
    assert hooks(network) == []


def test_a_wrapped_network_is_read_by_its_own_paths(network: Network, x: Tensor) -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.network(2 * x, t)

    with Tap(Wrapper(), ["blocks.1", "network.blocks.1", "network", ""]) as tap:
        out = Wrapper()(x, T)
    assert torch.equal(tap["blocks.1"], tap["network.blocks.1"])
    assert torch.equal(tap["network"], out)
    with pytest.raises(InputError, match=r"no submodule 'blocks.7' in Wrapper; near: network.blocks"):
        Tap(Wrapper(), ["blocks.7"])


def test_hooks_are_removed_when_the_network_fails(x: Tensor) -> None:
    network = Network(breaks=True)
    tap = Tap(network, ["blocks.1", "blocks.2"])
    with pytest.raises(ZeroDivisionError), tap:
        network(x, T)
    assert hooks(network) == []
    assert tap["blocks.1"].shape == x.shape
    with pytest.raises(InputError, match=r"'blocks.2' was not run"):
        tap["blocks.2"]


def test_hooks_of_others_stay(network: Network, x: Tensor) -> None:
    network.blocks[1].register_forward_hook(lambda module, inputs, output: (output[0] + 1, *output[1:]))
    with Tap(network, ["blocks.1"]) as outer, Tap(network, ["blocks.1", "blocks.2"]) as inner:
        network(x, T)
    assert len(hooks(network)) == 1
    first = network.blocks[0](torch.tanh(x))[0]
    assert torch.equal(outer["blocks.1"], network.blocks[1](torch.tanh(first))[0])
    assert torch.equal(outer["blocks.1"], inner["blocks.1"])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("blocks.7", "no submodule 'blocks.7' in Network; near: .*blocks.[012]"),
        ("block.1", "near: .*blocks.1"),
        ("blocks.1:x", "'blocks.1:x': expected a number"),
        ("blocks.1:-1", "expected a number"),
    ],
)
def test_a_path_that_is_not_there_is_named(network: Network, path: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as raised:
        Tap(network, ["blocks.0", path])
    assert "\n" not in str(raised.value)


def test_a_module_without_children_has_no_near_paths() -> None:
    with pytest.raises(InputError, match="near: none"):
        Tap(nn.Linear(1, 1), ["a"])


def test_a_module_that_did_not_run_is_named(network: Network, x: Tensor) -> None:
    with Tap(network, ["unused"]) as tap:
        network(x, T)
    with pytest.raises(InputError, match="'unused' was not run"):
        tap["unused"]


@pytest.mark.parametrize("path", ["blocks.1:2", "blocks.1:3", "blocks.1.inner:1"])
def test_an_output_that_is_no_tensor_is_named(network: Network, x: Tensor, path: str) -> None:
    with pytest.raises(InputError, match=f"'{re.escape(path)}' finds no tensor"), Tap(network, [path]):
        network(x, T)
    assert hooks(network) == []


@pytest.mark.parametrize("training", [True, False])
def test_a_torch_transformer_is_read_at_any_depth(training: bool) -> None:
    """In evaluation mode torch takes a fused path around the inner modules unless they carry hooks."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3).train(training)
    x = torch.randn(2, 5, 8)
    paths = ["layers.0", "layers.1.linear1", "layers.2.self_attn", "layers.2"]
    with torch.set_grad_enabled(training), Tap(encoder, paths) as tap:
        out = encoder(x)
    first = encoder.layers[0](x)
    torch.testing.assert_close(tap["layers.0"], first)
    attended = encoder.layers[1].self_attn(first, first, first)[0]
    torch.testing.assert_close(
        tap["layers.1.linear1"], encoder.layers[1].linear1(encoder.layers[1].norm1(first + attended))
    )
    torch.testing.assert_close(tap["layers.2"], out)
    assert tap["layers.2.self_attn"].shape == x.shape
    assert hooks(encoder) == []


@pytest.fixture
def hook_guards() -> Iterator[None]:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("hook_guards")
@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_network_is_read_too(network: Network, x: Tensor, in_place: bool) -> None:
    """Before, after and between calls without a tap; and every tap reads its own call."""
    compiled = network
    if in_place:
        network.compile(backend="eager")
    else:
        compiled = torch.compile(network, backend="eager")
    for number, tapped in enumerate([False, True, True, False, True]):
        if not tapped:
            compiled(x + number, T)
            continue
        with Tap(compiled, ["blocks.1", "blocks.2:1"]) as tap:
            compiled(x + number, T)
        first = network.blocks[0](torch.tanh(x + number))[0]
        second = network.blocks[1](torch.tanh(first))[0]
        torch.testing.assert_close(tap["blocks.1"], second)
        torch.testing.assert_close(tap["blocks.2:1"], network.blocks[2](torch.tanh(second))[1])
    assert hooks(network) == []


def test_a_compiled_network_that_cannot_see_hooks_raises(network: Network, x: Tensor) -> None:
    """torch.compile's default: a network compiled without hooks never looks for them. No stale state is handed out."""
    torch._dynamo.reset()
    compiled = torch.compile(network, backend="eager")
    compiled(x, T)
    with Tap(compiled, ["blocks.1"]) as tap:
        compiled(x, T)
    with pytest.raises(InputError, match="or is compiled"):
        tap["blocks.1"]
    torch._dynamo.reset()

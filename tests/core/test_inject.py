"""`Injected` tells a network latents: adapters against slow references, nulls, leaks, compilation."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reed_core.denoiser import ConditionalDenoiser, Tap
from reed_core.errors import InputError
from reed_core.inject import AdaLN, Adapter, CrossAttention, Injected, Token
from reed_core.latent import Revealed
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError, checkpoint

WIDTH, TOKENS, SEED = 8, 5, 7
T = torch.zeros(3)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """Mixes tokens; the second kind returns a tuple."""

    def __init__(self, pair: bool) -> None:
        super().__init__()
        self.inner, self.pair = nn.Linear(WIDTH, WIDTH), pair

    def forward(self, x: Tensor) -> Any:
        x = x + torch.tanh(self.inner(x) + x.mean(1, keepdim=True))
        return (x, "kept") if self.pair else x


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(number == 2) for number in range(4))
        self.unused = nn.Linear(WIDTH, WIDTH)
        self.text = nn.Identity()
        self.seen: Any = None

    def forward(self, x: Tensor, t: Tensor, c: Any = None) -> Tensor:
        if isinstance(c, str):
            self.seen = self.text(c)
        if c == "fail":
            raise ZeroDivisionError
        for block in self.blocks:
            x = block(x)
            if isinstance(x, tuple):
                x, word = x
                assert word == "kept"
        return x


def ada() -> AdaLN:
    return AdaLN("whole", 3, at="blocks.1", width=WIDTH)


def ada_tokens() -> AdaLN:
    return AdaLN("each", 4, at="blocks.2", width=WIDTH)


def ada_class() -> AdaLN:
    return AdaLN("class", 6, at="blocks.0", width=WIDTH, num_classes=5)


def cross() -> CrossAttention:
    return CrossAttention("other", 2, at="blocks.2", width=WIDTH, heads=2)


def cross_whole() -> CrossAttention:
    return CrossAttention("whole", 3, at="blocks.0", width=WIDTH)


def token() -> Token:
    return Token("whole", 3, at="blocks.1", until="blocks.2", width=WIDTH)


def tokens_class() -> Token:
    return Token("classes", 6, at="blocks.2", until="blocks.2", width=WIDTH, tokens=2, num_classes=5)


MAKERS = [ada, ada_tokens, ada_class, cross, cross_whole, token, tokens_class]
every_adapter = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)

VALUES: dict[str, Tensor] = {
    "whole": rand(3, 3, seed=1),
    "each": rand(3, TOKENS, 4, seed=2),
    "class": torch.tensor([0, 4, 2]),
    "other": rand(3, 7, 2, seed=3),
    "classes": torch.tensor([[0, 1], [2, 2], [4, 3]]),
}


def injected(*makers: Callable[[], Adapter], perturb: bool = True) -> Injected:
    torch.manual_seed(0)
    made = Injected(Network(), [make() for make in makers])
    if perturb:
        with torch.no_grad():
            for number, parameter in enumerate(made.adapters.parameters()):
                parameter.add_(0.4 * rand(*parameter.shape, seed=number))
    return made


def lead(z: Tensor) -> tuple[int, ...]:
    return tuple(z.shape[:-1] if z.is_floating_point() else z.shape)


def shown(made: Injected, *flags: bool) -> dict[str, Revealed]:
    names = {name for name, _ in made._entries()}
    return {name: Revealed(VALUES[name].clone(), None, torch.tensor(flags) if flags else None) for name in names}


@pytest.fixture
def x() -> Tensor:
    return rand(3, TOKENS, WIDTH, seed=SEED)


@every_adapter
def test_the_network_starts_as_it_was(make: Callable[[], Adapter], x: Tensor) -> None:
    """To the bit, with z and without; a token takes part at once."""
    made = injected(make, perturb=False)
    plain = made.network(x, T)
    for z in (None, shown(made)):
        assert torch.equal(made(x, T, None, z), plain) == (make not in (token, tokens_class))
    assert isinstance(made, ConditionalDenoiser)


@every_adapter
def test_what_is_not_shown_is_one_null_token(make: Callable[[], Adapter], x: Tensor) -> None:
    """z omitted, absent, shown to nobody, or unknown: the same p_u. z shown is something else."""
    made = injected(make)
    null = made(x, T)
    nobody = shown(made, False, False, False)
    unknown = {name: Revealed(one.z, torch.zeros(lead(one.z), dtype=torch.bool)) for name, one in nobody.items()}
    for z in ({}, nobody, unknown):
        torch.testing.assert_close(made(x, T, None, z), null, atol=1e-6, rtol=1e-6)
    told = made(x, T, None, shown(made))
    assert bool(((told - null).abs().amax((1, 2)) > 1e-3).all())
    some = made(x, T, None, shown(made, True, False, True))
    mixed = torch.stack([told[0], null[1], told[2]])
    torch.testing.assert_close(some, mixed, atol=1e-6, rtol=1e-6)


@every_adapter
def test_what_is_unknown_or_not_shown_never_enters(make: Callable[[], Adapter], x: Tensor) -> None:
    """Not even when it holds no numbers; nor its gradient."""
    made, results = injected(make), []
    for junk in (0.0, 9.0, math.nan):
        z = shown(made, True, False, True)
        for name, one in z.items():
            if one.z.is_floating_point():
                one.z[1] = junk
                if one.z.ndim == 3:
                    one.z[0, 2:] = junk
                    mask = (torch.arange(one.z.shape[1]) < 2).repeat(3, 1)
                    mask[2] = True
                    z[name] = Revealed(one.z, mask, one.shown)
            else:
                one.z[1] = 0 if junk else -1
        out = made(x, T, None, z)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(made.adapters.parameters()))])
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            assert bool(other.isfinite().all())
            assert torch.equal(one, other)


def run(made: Injected, x: Tensor, change: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
    """The network by hand, with changes of its states before ("<k") and after (">k") block k."""
    for number, block in enumerate(made.network.blocks):  # type: ignore[arg-type]
        x = change.get(f"<{number}", lambda state: state)(x)
        out = block(x)
        x = change.get(f">{number}", lambda state: state)(out[0] if isinstance(out, tuple) else out)
    return x


@pytest.mark.parametrize("make", [ada, ada_tokens, ada_class])
def test_adaln_scales_and_shifts(make: Callable[[], AdaLN], x: Tensor) -> None:
    made = injected(make)
    adapter: Any = made.adapters[0]

    def modulated(state: Tensor) -> Tensor:
        z = VALUES[adapter.name]
        z = adapter.told.classes.weight[z] if make is ada_class else z
        z = z[:, None].expand(3, TOKENS, -1) if z.ndim == 2 else z
        out = torch.empty_like(state)
        for i in range(3):
            for j in range(TOKENS):
                scale, shift = adapter.modulate(z[i, j]).chunk(2)
                out[i, j] = state[i, j] * (1 + scale) + shift
        return out

    slow = run(made, x, {f">{adapter.at[-1]}": modulated})
    torch.testing.assert_close(made(x, T, None, shown(made)), slow)


def test_cross_attention_is_a_softmax_over_known_tokens(x: Tensor) -> None:
    made = injected(cross)
    adapter: Any = made.adapters[0]
    mask = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[1] = False

    def attended(state: Tensor) -> Tensor:
        out = []
        for i in range(3):
            z = VALUES["other"][i][mask[i]] if mask[i].any() else adapter.told.null[None]
            q = adapter.query(nn.functional.layer_norm(state[i], (WIDTH,))).view(-1, 2, 4)
            k, v = (part.view(-1, 2, 4) for part in adapter.key_value(z).chunk(2, -1))
            weights = (torch.einsum("qhd,khd->hqk", q, k) / 2).softmax(-1)
            out.append(state[i] + adapter.leave(torch.einsum("hqk,khd->qhd", weights, v).reshape(-1, WIDTH)))
        return torch.stack(out)

    slow = run(made, x, {">2": attended})
    torch.testing.assert_close(made(x, T, None, {"other": Revealed(VALUES["other"], mask)}), slow, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", [token, tokens_class])
def test_tokens_stand_in_front_and_leave_again(make: Callable[[], Token], x: Tensor) -> None:
    made = injected(make)
    adapter: Any = made.adapters[0]
    z = VALUES[adapter.name]
    z = z[:, None] if make is token else adapter.told.classes(z)
    slow = run(
        made,
        x,
        {
            f"<{adapter.at[-1]}": lambda state: torch.cat([adapter.embed(z), state], 1),
            f">{adapter.until[-1]}": lambda state: state[:, adapter.tokens :],
        },
    )
    torch.testing.assert_close(made(x, T, None, shown(made)), slow)


@every_adapter
def test_gradients_reach_every_part_of_an_adapter(make: Callable[[], Adapter], x: Tensor) -> None:
    made = injected(make)
    made(x, T, None, shown(made, True, False, True)).square().sum().backward()
    for name, parameter in made.adapters.named_parameters():
        idle = make is cross_whole and ".query" in name  # one key: nothing to choose from
        assert parameter.grad is not None, name
        assert bool((parameter.grad != 0).any()) != idle, name


def test_at_the_start_gradients_reach_the_zeros(x: Tensor) -> None:
    made = injected(ada, cross, perturb=False)
    made(x, T, None, shown(made)).square().sum().backward()
    assert bool((made.adapters[0].modulate[-1].weight.grad != 0).any())  # type: ignore[union-attr, index]
    assert bool((made.adapters[1].leave.weight.grad != 0).any())  # type: ignore[union-attr]


def test_adapters_act_together_in_order(x: Tensor) -> None:
    """Two of one latent at two paths; two latents at one path."""
    made = injected(cross_whole, ada, ada_tokens, cross, token)
    z = shown(made)
    with pytest.raises(InputError, match=r"'each' has elements \(3, 5\), the state at 'blocks.2' \(3, 6\)"):
        made(x, T, None, z)
    made = injected(cross_whole, ada, ada_tokens, cross)
    parts: Any = made.adapters
    slow = run(
        made,
        x,
        {
            ">0": lambda state: parts[0](state, z["whole"]),
            ">1": lambda state: parts[1](state, z["whole"]),
            ">2": lambda state: parts[3](parts[2](state, z["each"]), z["other"]),
        },
    )
    torch.testing.assert_close(made(x, T, None, z), slow)


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in module.modules())


def test_the_network_is_not_changed(x: Tensor) -> None:
    made = injected(ada, token)
    network: Any = made.network
    plain, keys = network(x, T), list(network.state_dict())
    made(x, T, "a condition", shown(made))
    assert network.seen == "a condition"
    with pytest.raises(ZeroDivisionError):
        made(x, T, "fail", shown(made))
    assert hooks(made) == 0
    assert made(x, T).isfinite().all()
    assert torch.equal(network(x, T), plain)
    assert list(network.state_dict()) == keys
    assert [key for key in made.state_dict() if key.startswith("network.")] == [f"network.{key}" for key in keys]


def test_the_state_makes_the_same_network_again(x: Tensor) -> None:
    makers = (ada, ada_class, cross, token)
    made, other = injected(*makers), injected(*makers, perturb=False)
    z = shown(made)
    assert not torch.equal(other(x, T, None, z), made(x, T, None, z))
    other.load_state_dict(made.state_dict())
    copied = copy.deepcopy(made)
    assert torch.equal(other(x, T, None, z), made(x, T, None, z))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    assert torch.equal(copied(x, T, None, z), other(x, T, None, z))


@pytest.mark.parametrize("training", [True, False])
def test_a_torch_transformer_takes_every_adapter(training: bool, x: Tensor) -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, batch_first=True)
            self.layers = nn.ModuleList(copy.deepcopy(layer) for _ in range(3))

        def forward(self, x: Tensor, t: Tensor, c: Any = None) -> Tensor:
            for layer in self.layers:
                x = layer(x)
            return x

    torch.manual_seed(0)
    made = Injected(
        Encoder(),
        [
            AdaLN("whole", 3, at="layers.0", width=WIDTH),
            CrossAttention("other", 2, at="layers.1", width=WIDTH, heads=2),
            Token("whole", 3, at="layers.1", until="layers.2", width=WIDTH),
        ],
    ).train(training)
    with torch.set_grad_enabled(training):
        out, null = made(x, T, None, shown(made)), made(x, T)
    assert out.shape == x.shape
    assert not torch.allclose(out, null)


def test_checkpointing_goes_around_the_whole_or_fails(x: Tensor) -> None:
    """A checkpointed block runs again when hooks are gone: torch notices, and gradients are never silently wrong."""

    class Saving(Network):
        def forward(self, x: Tensor, t: Tensor, c: Any = None) -> Tensor:
            for block in self.blocks[:2]:
                x = checkpoint(block, x, use_reentrant=False)
            return x

    made = injected(ada)
    z, parameters = shown(made), list(made.adapters.parameters())
    plain = torch.autograd.grad(made(x, T, None, z).sum(), parameters)
    whole = torch.autograd.grad(checkpoint(made, x, T, None, z, use_reentrant=False).sum(), parameters)
    assert all(torch.equal(one, other) for one, other in zip(plain, whole, strict=True))
    inner = Injected(Saving(), [ada()])
    with pytest.raises(CheckpointError):
        inner(x, T, None, z).sum().backward()


def test_half_precision_stays(x: Tensor) -> None:
    made = injected(ada, cross, token)
    made.network.bfloat16()
    assert made(x.bfloat16(), T, None, shown(made)).dtype == torch.bfloat16


# Leaks: a head of p(z | x_t) must not read a state that has seen z (THEORY D14)


@pytest.mark.parametrize("make", [ada, token])
def test_states_upstream_know_nothing_of_z(make: Callable[[], Adapter], x: Tensor) -> None:
    """Random z in, the same state out, to the bit: before the injection, and at its very path."""
    made = injected(make)
    paths = ["blocks.0", "network.blocks.0", *(["blocks.1"] if make is ada else [])]
    states = []
    for seed in range(3):
        with Tap(made, [*paths, "blocks.3"], blind={path: ["whole"] for path in paths}) as tap:
            made(x, T, None, {"whole": Revealed(rand(3, 3, seed=seed))})
        states.append([tap[path] for path in [*paths, "blocks.3"]])
    for one in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(one[:-1], states[0][:-1], strict=True))
        assert not torch.allclose(one[-1], states[0][-1])
    assert torch.equal(states[0][0], states[0][1])


@pytest.mark.parametrize(("make", "at"), [(ada, "blocks.2"), (token, "blocks.1"), (ada, ""), (ada, "network.blocks.3")])
def test_reading_a_state_that_has_seen_z_is_refused(make: Callable[[], Adapter], at: str, x: Tensor) -> None:
    made = injected(make, cross)
    said = rf"'{at}' reads, for latent 'whole', .* \(injected at 'blocks.1'\); tap upstream"
    with (
        pytest.raises(InputError, match=said) as raised,
        Tap(made, [at], blind={at: ["whole"]}),
    ):
        made(x, T, None, shown(made))
    assert 'head_pass="null"' in str(raised.value)
    assert hooks(made) == 0
    with Tap(made, [at], blind={at: ["whole"]}) as tap:
        made(x, T)
    assert tap[at].isfinite().all()
    others = {"other": shown(made)["other"]}
    with Tap(made, [at], blind={at: ["whole"]}) as tap:
        made(x, T, None, others)
    assert tap[at].isfinite().all()


# Errors


@pytest.mark.parametrize(
    ("adapters", "said"),
    [
        ([AdaLN("a", 3, at="blocks.9", width=8)], "no submodule 'blocks.9' in Network; near: .*blocks.[0-3]"),
        ([Token("a", 3, at="blocks.1", until="blocs", width=8)], "no submodule 'blocs'"),
        ([ada(), CrossAttention("whole", 3, at="blocks.1", width=8)], "'whole' is let in twice at 'blocks.1'"),
    ],
)
def test_paths_that_are_not_there_are_named(adapters: list[Adapter], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Injected(Network(), adapters)


@pytest.mark.parametrize(
    ("adapter", "name", "z", "said"),
    [
        (ada(), "wholly", rand(3, 3), "'wholly' has no adapter in this network; it takes whole"),
        (ada(), "whole", rand(3, 4), r"'whole': z has the shape \(3, 4\); its adapter takes 3 features"),
        (
            ada_tokens(),
            "each",
            rand(3, 6, 4),
            r"elements \(3, 6\), the state at 'blocks.2' \(3, 5\); .* CrossA",
        ),
        (ada_class(), "class", rand(3), "'class': expected class indices, got torch.float32"),
        (tokens_class(), "classes", torch.zeros(3, 4, dtype=torch.long), "has 4 tokens; its adapter was made for 2"),
        (AdaLN("a", 3, at="blocks.1", width=9), "a", rand(3, 3), "'blocks.1' has 8 features .* of latent 'a' takes 9"),
        (CrossAttention("a", 3, at="blocks.1", width=4), "a", rand(3, 3), "has 8 features"),
        (Token("a", 3, at="blocks.1", until="blocks.1", width=4), "a", rand(3, 3), "has 8 features"),
        (AdaLN("a", 3, at="unused", width=8), "a", rand(3, 3), "did not run 'unused', where latent 'a' enters"),
        (AdaLN("a", 3, at="text", width=8), "a", rand(3, 3), "'a' finds no tensor at 'text'"),
    ],
)
def test_a_z_that_does_not_fit_is_named(adapter: Adapter, name: str, z: Tensor, said: str, x: Tensor) -> None:
    made = Injected(Network(), [adapter])
    with pytest.raises(InputError, match=said) as raised:
        made(x, T, "c", {name: Revealed(z)})
    assert "\n" not in str(raised.value)
    assert hooks(made) == 0


def test_heads_have_to_divide_the_width() -> None:
    with pytest.raises(InputError, match="8 does not split into 3 heads"):
        CrossAttention("a", 2, at="blocks.1", width=8, heads=3)

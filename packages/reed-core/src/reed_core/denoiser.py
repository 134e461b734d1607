"""The denoiser protocols, and `Tap`: reading hidden states of any module by path, without changing it.

`Hooked` puts hooks on submodules for the duration of a block; `Tap` and `reed_core.inject` stand on it. It may be
entered outside of compiled code or inside: there torch.compile cannot follow `register_forward_hook`, but it can follow
the exchange of a module's table of hooks.
"""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reed_core.errors import InputError
from reed_core.latent import Revealed


@runtime_checkable
class Denoiser(Protocol):
    """A network that says what the process asks (v, eps, x_0 or logits) about x_t.

    `c` is a condition of any kind (a class, a backbone, None); it passes through every objective and sampler untouched.
    """

    def __call__(self, x_t: Any, t: Float[Tensor, "b"], c: Any = None) -> Any:
        """Predicts from x_t at times t, [b]."""
        ...


@runtime_checkable
class ConditionalDenoiser(Protocol):
    """A denoiser that may be told latents: p_c where they are shown, p_u where they are not (THEORY D14)."""

    def __call__(self, x_t: Any, t: Float[Tensor, "b"], c: Any = None, z: Mapping[str, Revealed] | None = None) -> Any:
        """Predicts from x_t at times t, [b]. Latents that are not shown, or absent from z, are replaced by nulls."""
        ...


class Hook(NamedTuple):
    """A function to be called when a module runs.

    Attributes:
        module: The module.
        act: `act(module, inputs, output)` after the forward; `act(module, inputs)` before it. What it returns, unless
            None, takes the place of the output (or the inputs).
        before: Whether it is called before the forward.
    """

    module: nn.Module
    act: Callable[..., Any]
    before: bool = False


class Hooked:
    """Hooks that live for the duration of a `with` block, in the order given and after those already there.

    Args:
        hooks: The hooks.
    """

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = tuple(hooks)
        self._undo: list[Any] = []

    def __enter__(self) -> "Hooked":
        for hook in self._hooks:
            if torch.compiler.is_compiling():
                table = "_forward_pre_hooks" if hook.before else "_forward_hooks"
                old = getattr(hook.module, table)
                setattr(hook.module, table, OrderedDict({**old, f"hooked {len(old)}": hook.act}))
                self._undo.append((hook.module, table, old))
            elif hook.before:
                self._undo.append(hook.module.register_forward_pre_hook(hook.act))
            else:
                self._undo.append(hook.module.register_forward_hook(hook.act))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for undo in reversed(self._undo):
            if isinstance(undo, tuple):
                module, table, old = undo
                setattr(module, table, OrderedDict(old))  # of that type, or hooks cannot be registered later
            else:
                undo.remove()
        self._undo.clear()


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The submodule at a path of `named_modules()`; in a module that wraps a `network`, also by the network's own path.

    Raises:
        InputError: If there is none; the nearest paths are named.
    """
    known = dict(getattr(module, "_orig_mod", module).named_modules())
    found = known.get(path, known.get(f"network.{path}"))
    if found is None:
        near = difflib.get_close_matches(path, [key for key in known if key], n=3, cutoff=0.0)
        raise InputError(f"no submodule '{path}' in {type(module).__name__}; near: {', '.join(near) or 'none'}")
    return found


class Tap:
    """Reads the outputs of named submodules during a forward pass.

        with Tap(model, ["blocks.7"]) as tap:
            prediction = model(x_t, t, c)
        hidden = tap["blocks.7"]

    A path is one of `named_modules()`; for an `Injected` network, "blocks.7" and "network.blocks.7" are the same. When
    the module returns a tuple, its first element is read; "path:1" reads the second. The module is not changed: hooks
    live only inside the `with` block. A module called several times leaves its last output.

    Where z is injected at the very path that is tapped, the state before the injection is read.

    torch.compile (fullgraph=True included): a function that enters the tap, runs the network and reads `tap[path]`
    compiles into one graph; so does one that is called inside a tap entered outside. A network that is compiled by
    itself and called inside a tap is read too, by the paths of the network within; but torch.compile does not look for
    new hooks by default: unless its first call, and every later one, is inside a `Tap` of the same paths, set
    `torch._dynamo.config.skip_nnmodule_hook_guards = False` before compiling. Otherwise the tap raises.

    Args:
        module: Any torch module.
        paths: Paths of submodules.
        blind: For some of these paths, names of latents that the state must not know: a head that says p(z | x_t) must
            not read a state that has seen z (THEORY D14).

    Raises:
        InputError: If a path does not exist, its module was not run, its output is not a tensor, or the state has
            seen a latent to which it should be blind.
    """

    def __init__(
        self, module: nn.Module, paths: Sequence[str], blind: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        hooks: list[Hook] = []
        for path in paths:
            name, _, index = path.partition(":")
            target = submodule(module, name)
            if not (index or "0").isdecimal():
                raise InputError(f"tap '{path}': expected a number after the colon, the index in a tuple")
            hooks.append(Hook(target, self._reader(path, int(index or 0), tuple((blind or {}).get(path, ())))))
        self._hooked = Hooked(hooks)
        self._injected: list[Any] = [part for part in module.modules() if hasattr(part, "entered")] if blind else []
        self._states: dict[str, Tensor] = {}

    def __enter__(self) -> "Tap":
        self._states = {}
        self._hooked.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooked.__exit__(kind, error, trace)

    def __getitem__(self, path: str) -> Tensor:
        if path not in self._states:
            raise InputError(f"submodule '{path}' was not run in this forward pass, or is compiled; tap one that runs")
        return self._states[path]

    def _reader(self, path: str, index: int, unseen: tuple[str, ...]) -> Callable[..., None]:
        def read(module: nn.Module, inputs: Any, output: Any) -> None:
            for injected in self._injected:
                for name in unseen:
                    if name in injected.entered:
                        raise InputError(
                            f"tap '{path}' reads, for latent '{name}', a state that has seen its z (injected at "
                            f"'{injected.entered[name]}'); tap upstream of it, or use head_pass=\"null\""
                        )
            states = output if isinstance(output, (tuple, list)) else (output,)
            state = states[index] if index < len(states) else None
            if not isinstance(state, Tensor):
                raise InputError(f"tap '{path}' finds no tensor in a {type(output).__name__}; tap another module")
            self._states[path] = state

        return read

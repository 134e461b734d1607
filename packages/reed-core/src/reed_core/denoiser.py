"""The denoiser protocol, and `Tap`: reading hidden states of any module by path, without changing it."""

import difflib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from reed_core.errors import InputError


@runtime_checkable
class Denoiser(Protocol):
    """A network that says what the process asks (v, eps, x_0 or logits) about x_t.

    `c` is a condition of any kind (a class, a backbone, None); it passes through every objective and sampler untouched.
    """

    def __call__(self, x_t: Tensor, t: Float[Tensor, "b"], c: Any = None) -> Tensor:
        """Predicts from x_t at times t, [b]."""
        ...


class Tap:
    """Reads the outputs of named submodules during a forward pass.

        with Tap(model, ["blocks.7"]) as tap:
            prediction = model(x_t, t, c)
        hidden = tap["blocks.7"]

    A path is one of `named_modules()`. When the module returns a tuple, its first element is read; "path:1" reads the
    second. The module is not changed: hooks live only inside the `with` block. A module called several times leaves its
    last output.

    A compiled network is read too, by the paths of the network within. torch.compile does not look for new hooks by
    default: unless the first call, and every later one, is inside a `Tap` of the same paths, set
    `torch._dynamo.config.skip_nnmodule_hook_guards = False` before compiling. Otherwise the tap raises.

    Args:
        module: Any torch module.
        paths: Paths of submodules.

    Raises:
        InputError: If a path does not exist, its module was not run, or its output is not a tensor.
    """

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        known = dict(getattr(module, "_orig_mod", module).named_modules())
        self._targets: dict[str, tuple[nn.Module, int]] = {}
        for path in paths:
            name, _, index = path.partition(":")
            if name not in known:
                near = difflib.get_close_matches(name, [key for key in known if key], n=3, cutoff=0.0)
                raise InputError(f"no submodule '{name}' in {type(module).__name__}; near: {', '.join(near) or 'none'}")
            if not (index or "0").isdecimal():
                raise InputError(f"tap '{path}': expected a number after the colon, the index in a tuple")
            self._targets[path] = (known[name], int(index or 0))
        self._states: dict[str, Tensor] = {}
        self._handles: list[Any] = []

    def __enter__(self) -> "Tap":
        for path, (module, index) in self._targets.items():
            self._handles.append(module.register_forward_hook(self._reader(path, index)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def __getitem__(self, path: str) -> Tensor:
        if path not in self._states:
            raise InputError(f"submodule '{path}' was not run in this forward pass, or is compiled; tap one that runs")
        return self._states[path]

    def _reader(self, path: str, index: int) -> Any:
        def read(module: nn.Module, inputs: Any, output: Any) -> None:
            states = output if isinstance(output, (tuple, list)) else (output,)
            state = states[index] if index < len(states) else None
            if not isinstance(state, Tensor):
                raise InputError(f"tap '{path}' finds no tensor in a {type(output).__name__}; tap another module")
            self._states[path] = state

        return read

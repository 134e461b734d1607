"""`Injected`: a network and the adapters through which it is told latents, as one module.

    injected(x_t, t, c)                     p_u: every latent is its null token
    injected(x_t, t, c, z={"a": ...})       p_c of latent a, where it is shown (THEORY D14)
The adapters act through hooks that live for the duration of a forward; the network itself is not changed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from reed_core.denoiser import Hook, Hooked, submodule
from reed_core.errors import InputError
from reed_core.inject.adapter import Adapter, Entry
from reed_core.latent import Revealed


class Injected(nn.Module):
    """A denoiser that takes latents, made of one that does not.

    It compiles as a whole (`torch.compile(injected, fullgraph=True)`). Its state dict holds the network's parameters
    under `network.` and the adapters' under `adapters.`. At one path, adapters act in the order given.

    It does not know the padding of a batch: the mask of a padded z has to be given.

    A module that is run again after the forward, as activation checkpointing does, would run without its adapter, and
    torch raises: place adapters outside of checkpointed modules, or checkpoint the injected network as a whole.

    Args:
        network: Any module called as `network(x_t, t, c)`.
        adapters: `AdaLN`, `CrossAttention`, `Token` or modules of your own; several of one latent at different paths.

    Attributes:
        entered: Where each latent entered first since the last forward began, by name; `Tap` asks it.

    Raises:
        InputError: If a path does not exist, or a latent is let in twice at one path.
    """

    def __init__(self, network: nn.Module, adapters: Sequence[Adapter]) -> None:
        super().__init__()
        self.network = network
        self.adapters = nn.ModuleList(adapters)  # type: ignore[arg-type]
        self.entered: dict[str, str] = {}
        seen: set[tuple[str, str, bool]] = set()
        for name, entry in self._entries():
            submodule(network, entry.at)
            if (name, entry.at, entry.before) in seen:
                raise InputError(f"latent '{name}' is let in twice at '{entry.at}'; choose another path")
            seen.add((name, entry.at, entry.before))

    def forward(self, x_t: Any, t: Float[Tensor, "b"], c: Any = None, z: Mapping[str, Revealed] | None = None) -> Any:
        """What the network says of x_t.

        Args:
            x_t: Passed through.
            t: Passed through.
            c: Passed through.
            z: What is revealed, by latent; those that are absent are replaced by their null tokens.

        Raises:
            InputError: If z names a latent without adapter, or has another shape than its adapter takes, or if the
                network did not run a module that an adapter acts on.
        """
        z = z or {}
        entries = self._entries()
        names = {name for name, _ in entries}
        for name in z:
            if name not in names:
                raise InputError(
                    f"latent '{name}' has no adapter in this network; it takes {', '.join(sorted(names)) or 'none'}"
                )
        ran: set[int] = set()
        self.entered = {}
        hooks = [self._hook(number, name, entry, z.get(name), ran) for number, (name, entry) in enumerate(entries)]
        with Hooked(hooks):
            out = self.network(x_t, t, c)
        for number, (name, entry) in enumerate(entries):
            if number not in ran:
                raise InputError(
                    f"the network did not run '{entry.at}', where latent '{name}' enters; choose a module that runs"
                )
        return out

    def _entries(self) -> list[tuple[str, Entry]]:
        adapters: Any = self.adapters
        return [(adapter.name, entry) for adapter in adapters for entry in adapter.entries()]

    def _hook(self, number: int, name: str, entry: Entry, revealed: Revealed | None, ran: set[int]) -> Hook:
        def change(values: Any) -> Any:
            states = values if isinstance(values, (tuple, list)) else (values,)
            if not states or not isinstance(states[0], Tensor):
                raise InputError(f"latent '{name}' finds no tensor at '{entry.at}'; choose another module")
            ran.add(number)
            if revealed is not None:
                self.entered.setdefault(name, entry.at)
            state = entry.change(states[0], revealed)
            return (state, *states[1:]) if isinstance(values, (tuple, list)) else state

        def before(module: nn.Module, inputs: Any) -> Any:
            return change(inputs)

        def after(module: nn.Module, inputs: Any, output: Any) -> Any:
            return change(output)

        return Hook(submodule(self.network, entry.at), before if entry.before else after, entry.before)

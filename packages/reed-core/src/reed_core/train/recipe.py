"""What the recipes of all domains share: how their latents are named, the controls, and where the files lie."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from reed_core.errors import InputError


@runtime_checkable
class Named(Protocol):
    """A latent as a recipe writes it."""

    @property
    def name(self) -> str:
        """Its name in the log."""
        ...


Spec = TypeVar("Spec", bound=Named)


def named_by_kind(values: Any) -> Any:
    """The values of a latent's table, named by its kind where no name is given; for a validator before all others."""
    if isinstance(values, dict) and not values.get("name") and "kind" in values:
        return {**values, "name": values["kind"]}
    return values


def remaining(latents: Sequence[Spec], without: Sequence[str]) -> tuple[Spec, ...]:
    """The latents that are trained with: all but those left out."""
    return tuple(spec for spec in latents if spec.name not in without)


def check_controls(latents: Sequence[Named], without: Sequence[str], shuffle: bool) -> None:
    """Checks the names of latents, and the controls against them.

    Args:
        latents: The latents.
        without: Names of those to leave out.
        shuffle: Whether each sample is taught the z of another.

    Raises:
        ValueError: If two have one name, a name to leave out is not there, or nothing is left to shuffle.
    """
    names = [spec.name for spec in latents]
    if len(set(names)) != len(names):
        raise ValueError(f"latents need different names, got {', '.join(names)}; give each a `name`")
    missing = sorted(set(without) - set(names))
    if missing:
        raise ValueError(f"without: no latent {', '.join(missing)}; there are {', '.join(names) or 'none'}")
    if shuffle and not remaining(latents, without):
        raise ValueError("shuffle is a control of latents, and there is none; set shuffle=false")


def recipe_path(name: str, recipes: Path) -> Path:
    """A recipe file: a path, or the name of one in a package.

    Args:
        name: Either.
        recipes: The folder of the package's own.

    Raises:
        InputError: If there is neither.
    """
    for path in (Path(name), recipes / f"{name}.toml"):
        if path.is_file():
            return path
    there = ", ".join(sorted(path.stem for path in recipes.glob("*.toml")))
    raise InputError(f"no recipe {name}: no such file, and the package has {there}")

"""Weights that come with a package, found by name. Imports no torch: commands name them in their help."""

from pathlib import Path

from reed_core.errors import InputError


def named_folder(weights: str | Path, bundled: Path, train: str) -> Path:
    """The folder of some weights. A bare name is first looked for in a package; a folder here of that name is ./NAME.

    Args:
        weights: A folder, or the name of weights that come with the package.
        bundled: The folder of the package in which each set of weights has one of its own.
        train: The command that makes others, for the message.

    Raises:
        InputError: If it is neither.
    """
    name = str(weights)
    places = (bundled / name, Path(name)) if name == Path(name).name else (Path(name),)
    for folder in places:
        if name and folder.is_dir():
            return folder
    there = ", ".join(sorted(path.name for path in bundled.iterdir() if path.is_dir())) if bundled.is_dir() else ""
    raise InputError(
        f"no weights {name!r}: no such folder, and this version comes with {there or 'none'}; "
        f"give the `weights` folder of a run of `{train}`"
    )

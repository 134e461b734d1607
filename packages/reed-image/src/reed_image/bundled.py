"""Weights that come with the package, each in a folder `weights/NAME` with its model card."""

from pathlib import Path

from reed_core.bundled import named_folder

BUNDLED = Path(__file__).parent / "weights"
DEFAULT = "cifar10"


def weights_folder(weights: str | Path) -> Path:
    """The folder of some weights, as `reed_core.bundled.named_folder` finds it.

    Args:
        weights: A folder, or the name of weights that come with the package.

    Raises:
        InputError: If it is neither.
    """
    return named_folder(weights, BUNDLED, "reed-image train")

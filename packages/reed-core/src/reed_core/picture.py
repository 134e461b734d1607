"""How the pictures of this package look, and how they are written. Needs matplotlib: `pip install reed-core[plot]`.

Colours are the colour-blind-safe set of Okabe and Ito.
"""

from pathlib import Path
from typing import Any

from reed_core.errors import InputError
from reed_core.files import write_with

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#6b6b6b"


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure that makes room for its labels; it belongs to no window.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        InputError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise InputError("matplotlib is not installed; pip install 'reed-core[plot]'") from error
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1))


def finish(axes: Any, legend: bool = True) -> None:
    """A quiet grid, two spines, and a legend without a frame."""
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(frameon=False, fontsize=8.5)


def save_png(figure: Any, path: Path | str) -> None:
    """Writes a PNG file, whole or not at all.

    Raises:
        InputError: If it cannot be written.
    """
    write_with(path, lambda aside: figure.savefig(aside, dpi=150, format="png"))

"""reed-image: representation-guided diffusion transformers on the latents of an image autoencoder.

import reed_image
model = reed_image.load("cifar10")    # or the folder runs/NAME/weights
images = model.sample(8, ["cat", "dog"], seed=0, steps=50, scale=2.0)
reed_image.write_grid(images, "grid.png")
v = model(x_t, t, reed_image.Condition(label))
"""

from typing import Any

__version__ = "0.1.0"

__all__ = ["Condition", "ImageModel", "import_checkpoint", "load", "write_grid"]

_HOMES = {
    "Condition": "network",
    "ImageModel": "model",
    "import_checkpoint": "imports",
    "load": "model",
    "write_grid": "grid",
}


def __getattr__(name: str) -> Any:
    """Imports public names on first use, so that importing the package does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reed_image' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"reed_image.{_HOMES[name]}"), name)

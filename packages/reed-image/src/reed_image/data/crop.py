"""From an image of any size to a square one.

"adm" is the crop that ImageNet models are compared under (guided-diffusion, arXiv 2105.05233): halve both sides with a
box filter while the shorter is at least twice the target, resize the shorter to the target with a bicubic filter, take
the centre. Every rounding is part of the definition. "resize" squeezes the whole image, and keeps what a crop cuts off.
"""

from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

Crop = Literal["adm", "resize"]


def adm_crop(image: Image.Image, size: int) -> Image.Image:
    """The centre crop of ADM.

    Args:
        image: Mode RGB.
        size: The side of the result, in pixels.
    """
    width, height = image.size
    while min(width, height) >= 2 * size:
        width, height = width // 2, height // 2
        image = image.resize((width, height), Image.Resampling.BOX)
    scale = size / min(width, height)
    width, height = round(width * scale), round(height * scale)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def square(image: Image.Image, size: int, crop: Crop) -> UInt8[np.ndarray, "s s 3"]:
    """An RGB image as a square array.

    Args:
        image: Mode RGB.
        size: The side, in pixels.
        crop: How.
    """
    made = (
        adm_crop(image, size)
        if crop == "adm"
        else image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=None)
    )
    return np.asarray(made)

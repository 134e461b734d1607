"""One image file, from its bytes to RGB with 8 bits a channel, or the reason why not.

transparent          composed over white
palette, grey, CMYK  converted to RGB; of an animation, the first frame
16-bit grey          value / 257, rounded (16-bit colour is reduced by the decoder itself)
EXIF orientation     applied
"""

import io
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Reason = Literal["not an image", "damaged", "too small", "too large", "unsupported depth", "missing", "no latents"]

_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")


class UnusableError(Exception):
    """An image that cannot be used. Not an error of the run: it is counted under its reason.

    Args:
        reason: One of a few words, so that counts add up.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


def read_rgb(data: bytes, smallest: int = 1) -> Image.Image:
    """Decodes an image file.

    Args:
        data: The whole file.
        smallest: The shortest side that is accepted, in pixels.

    Returns:
        The image in mode RGB, upright.

    Raises:
        UnusableError: If it is no image, damaged, too small, too large to be opened safely, or deeper than 16 bits.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        if min(image.size) < smallest:
            raise UnusableError("too small")
        image.load()
        image = ImageOps.exif_transpose(image)
        return _rgb(image)
    except (UnusableError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnusableError("not an image") from error
    except Image.DecompressionBombError as error:
        raise UnusableError("too large") from error
    except Exception as error:  # damaged files make decoders fail in many ways: OSError, SyntaxError, struct.error, ...
        raise UnusableError("damaged") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 0xFFFF:
            raise UnusableError("unsupported depth")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise UnusableError("unsupported depth")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        shown = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", shown.size, (255, 255, 255, 255)), shown).convert("RGB")
    return image.convert("RGB")

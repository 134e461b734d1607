"""The denoiser of images: SiT, a transformer on patches of an image or of its autoencoder's latents.

`config` holds sizes and presets, `condition` what the network is told, `embedding` the vectors of time, class, text and
place, `attention` and `block` the layers, `sit` the whole.
"""

from reed_image.network.condition import Condition
from reed_image.network.config import SIZES, SiTConfig, preset
from reed_image.network.sit import SiT

__all__ = ["SIZES", "Condition", "SiT", "SiTConfig", "preset"]

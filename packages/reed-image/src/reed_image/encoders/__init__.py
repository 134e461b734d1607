"""Encoders of pictures: frozen functions from a picture to a representation z (`reed_core.representation`).

x_0 is a batch of pictures in [0, 1], [b, 3, H, W]; c is `reed_image.data.Named`, for encoders that go by the name.
"""

from reed_image.encoders.arrays import ArrayEncoder
from reed_image.encoders.captions import read_captions
from reed_image.encoders.layout import Layout
from reed_image.encoders.resnet20 import resnet20
from reed_image.encoders.text import TextEncoder, load_text_encoder
from reed_image.encoders.timm_model import mobilenet_v2, timm_encoder
from reed_image.encoders.vision import VisionEncoder

__all__ = [
    "ArrayEncoder",
    "Layout",
    "TextEncoder",
    "VisionEncoder",
    "load_text_encoder",
    "mobilenet_v2",
    "read_captions",
    "resnet20",
    "timm_encoder",
]

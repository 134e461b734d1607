"""Image autoencoders: what turns pictures into the latents that are diffused, and back."""

from reed_image.autoencoder.codec import Codec, DcCodec, KlCodec, Moments, PixelCodec, TinyCodec
from reed_image.autoencoder.load import load_autoencoder, load_recorded
from reed_image.autoencoder.model import Autoencoder, AutoencoderSpec
from reed_image.autoencoder.taef2 import load_taef2

__all__ = [
    "Autoencoder",
    "AutoencoderSpec",
    "Codec",
    "DcCodec",
    "KlCodec",
    "Moments",
    "PixelCodec",
    "TinyCodec",
    "load_autoencoder",
    "load_recorded",
    "load_taef2",
]

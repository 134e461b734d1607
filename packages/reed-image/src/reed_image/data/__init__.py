"""Pictures: where they come from, how they are cropped, and the folder of latents that training reads."""

from reed_image.data.open_source import open_source
from reed_image.data.preparation import SD_LATENTS, prepare
from reed_image.data.prepared import Named, PictureItems, Prepared, open_prepared
from reed_image.data.source import Picture, Source
from reed_image.data.training import training_data

__all__ = [
    "SD_LATENTS",
    "Named",
    "Picture",
    "PictureItems",
    "Prepared",
    "Source",
    "open_prepared",
    "open_source",
    "prepare",
    "training_data",
]

from .hypercolumns import CELL, Hypercolumns
from .vgg import ENCODER, TINY, VGG, VGG16, VGG19, VGG_NORMALISED, Plan, from_official, load, recognise

__all__ = [
    "CELL",
    "ENCODER",
    "TINY",
    "VGG",
    "VGG16",
    "VGG19",
    "VGG_NORMALISED",
    "Hypercolumns",
    "Plan",
    "from_official",
    "load",
    "recognise",
]

from .hypercolumns import Hypercolumns
from .vgg import ENCODER, TINY, VGG, VGG16, VGG19, VGG_NORMALISED, Plan, from_official, load, recognise

__all__ = [
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

from .cielab import lab_to_rgb, luminance, rgb_to_lab
from .confine import confine
from .moments import keep_colour, lend_colours, match_moments

__all__ = [
    "confine",
    "keep_colour",
    "lab_to_rgb",
    "lend_colours",
    "luminance",
    "match_moments",
    "rgb_to_lab",
]

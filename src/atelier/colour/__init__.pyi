from .bands import covariances, lend_bands, split_bands
from .cielab import lab_to_rgb, luminance, rgb_to_lab
from .confine import confine
from .moments import keep_colour, lend_colours, match_moments

__all__ = [
    "confine",
    "covariances",
    "keep_colour",
    "lab_to_rgb",
    "lend_bands",
    "lend_colours",
    "luminance",
    "match_moments",
    "rgb_to_lab",
    "split_bands",
]

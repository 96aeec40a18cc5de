from .colour import keep_colour, lab_to_rgb, luminance, match_moments, rgb_to_lab
from .decode import MAX_PIXELS, READABLE
from .encode import WRITABLE
from .files import check_writable, read, read_recipe, write
from .picture import Picture
from .regions import blend, feather, read_mask
from .resize import fit  # not `resize`: that name is the module, imported first or last

__all__ = [
    "MAX_PIXELS",
    "READABLE",
    "WRITABLE",
    "Picture",
    "blend",
    "check_writable",
    "feather",
    "fit",
    "keep_colour",
    "lab_to_rgb",
    "luminance",
    "match_moments",
    "read",
    "read_mask",
    "read_recipe",
    "rgb_to_lab",
    "write",
]

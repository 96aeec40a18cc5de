from .arrays import MAX_PIXELS
from .decode import READABLE
from .encode import WRITABLE
from .files import check_style_writable, check_writable, read, write, write_style
from .hidden import fill_hidden
from .metadata import Metadata
from .picture import Picture
from .reading import read_recipe
from .regions import Floats, blend, feather, read_mask
from .resize import fit  # not `resize`: that name is the module, imported first or last
from .stylefile import style_entries

__all__ = [
    "MAX_PIXELS",
    "READABLE",
    "WRITABLE",
    "Floats",
    "Metadata",
    "Picture",
    "blend",
    "check_style_writable",
    "check_writable",
    "feather",
    "fill_hidden",
    "fit",
    "read",
    "read_mask",
    "read_recipe",
    "style_entries",
    "write",
    "write_style",
]

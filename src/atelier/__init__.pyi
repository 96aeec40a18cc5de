from .api import Controls, replay, save_style, stylize
from .core.errors import (
    AtelierError,
    InputError,
    OutputError,
    ResourceError,
    TrainingError,
    UsageError,
    WeightsError,
)
from .core.progress import Event
from .images.picture import Picture
from .methods.registry import list_methods

__version__: str
__all__ = [
    "AtelierError",
    "Controls",
    "Event",
    "InputError",
    "OutputError",
    "Picture",
    "ResourceError",
    "TrainingError",
    "UsageError",
    "WeightsError",
    "list_methods",
    "replay",
    "save_style",
    "stylize",
]

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
from .core.registry import methods
from .images.picture import Picture

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
    "methods",
    "replay",
    "save_style",
    "stylize",
]

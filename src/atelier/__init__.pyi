from .api import Controls, generate, harmonise, replay, run, save_style, stylize
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
from .core.recipe import Recipe, Request
from .images.picture import Picture
from .methods.registry import list_methods
from .session.inputs import PictureStyle, TextStyle, TrainedStyle
from .session.stylizer import Stylizer
from .video.replay import replay_video
from .video.run import stylize_video

__version__: str
__all__ = [
    "AtelierError",
    "Controls",
    "Event",
    "InputError",
    "OutputError",
    "Picture",
    "PictureStyle",
    "Recipe",
    "Request",
    "ResourceError",
    "Stylizer",
    "TextStyle",
    "TrainedStyle",
    "TrainingError",
    "UsageError",
    "WeightsError",
    "generate",
    "harmonise",
    "list_methods",
    "replay",
    "replay_video",
    "run",
    "save_style",
    "stylize",
    "stylize_video",
]

from .descent import Descent
from .moments import Gaussian, channel_moments, gram, mean_and_covariance
from .neighbours import (
    Candidates,
    balance,
    basis,
    candidates,
    coherent,
    confined,
    joined_masks,
    nearest,
    pieces,
    projected,
)
from .pyramid import merge, sizes, split
from .roots import sqrtm
from .running import held, holding, remembering
from .visible import mask_at, visible_pixels, weight_at

__all__ = [
    "Candidates",
    "Descent",
    "Gaussian",
    "balance",
    "basis",
    "candidates",
    "channel_moments",
    "coherent",
    "confined",
    "gram",
    "held",
    "holding",
    "joined_masks",
    "mask_at",
    "mean_and_covariance",
    "merge",
    "nearest",
    "pieces",
    "projected",
    "remembering",
    "sizes",
    "split",
    "sqrtm",
    "visible_pixels",
    "weight_at",
]

from .descent import Descent
from .moments import channel_moments, gram, mean_and_covariance
from .pyramid import merge, sizes, split
from .roots import sqrtm

__all__ = ["Descent", "channel_moments", "gram", "mean_and_covariance", "merge", "sizes", "split", "sqrtm"]

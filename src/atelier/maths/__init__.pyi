from .descent import Descent
from .moments import channel_moments, gram, mean_and_covariance
from .neighbours import Candidates, balance, basis, candidates, coherent, confined, nearest, projected
from .pyramid import merge, sizes, split
from .roots import sqrtm

__all__ = [
    "Candidates",
    "Descent",
    "balance",
    "basis",
    "candidates",
    "channel_moments",
    "coherent",
    "confined",
    "gram",
    "mean_and_covariance",
    "merge",
    "nearest",
    "projected",
    "sizes",
    "split",
    "sqrtm",
]

from .content import ContentLoss
from .neighbours import NeighbourLoss, swap
from .smoothness import TotalVariation
from .statistics import GramLoss, MomentLoss, WassersteinLoss

__all__ = [
    "ContentLoss",
    "GramLoss",
    "MomentLoss",
    "NeighbourLoss",
    "TotalVariation",
    "WassersteinLoss",
    "swap",
]

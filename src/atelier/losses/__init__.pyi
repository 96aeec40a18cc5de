from .content import ContentLoss, EdgeLoss
from .neighbours import NeighbourLoss, swap
from .smoothness import LatticeLoss, TotalVariation
from .statistics import GramLoss, MomentLoss, WassersteinLoss

__all__ = [
    "ContentLoss",
    "EdgeLoss",
    "GramLoss",
    "LatticeLoss",
    "MomentLoss",
    "NeighbourLoss",
    "TotalVariation",
    "WassersteinLoss",
    "swap",
]

from .content import ContentLoss
from .smoothness import TotalVariation
from .statistics import GramLoss, MomentLoss, WassersteinLoss

__all__ = ["ContentLoss", "GramLoss", "MomentLoss", "TotalVariation", "WassersteinLoss"]

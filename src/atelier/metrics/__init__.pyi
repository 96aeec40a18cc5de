from .base import Encoder, Metric
from .gram import GramDistance
from .light import LightSimilarity
from .moments import MomentDistance
from .structure import StructureSimilarity

__all__ = [
    "Encoder",
    "GramDistance",
    "LightSimilarity",
    "Metric",
    "MomentDistance",
    "StructureSimilarity",
]

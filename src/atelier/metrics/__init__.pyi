from .base import Embedder, Encoder, Metric, SetMetric, Style
from .blotch import Blotch
from .catalogue import METRICS, Declared, Measurement, measure
from .classifier import ClassifierContent, ClassifierRecall
from .clip import DirectionLikeness, ImageLikeness, WordLikeness
from .content import ContentDistance, SelfSimilarityDivergence
from .frechet import ArtFrechetDistance, FrechetDistance, KernelDistance
from .gram import GramDistance, GramError
from .histogram import HistogramDistance
from .light import LightSimilarity
from .lpips import LPIPS
from .moments import MomentDistance
from .networks import Networks
from .preference import Strengths, bradley_terry
from .psnr import PSNR
from .ssim import SSIM, MultiscaleSSIM
from .structure import StructureSimilarity, StyleLeakage
from .vgg_style import RelativeStyle
from .video import flicker, warping_error

__all__ = [
    "LPIPS",
    "METRICS",
    "PSNR",
    "SSIM",
    "ArtFrechetDistance",
    "Blotch",
    "ClassifierContent",
    "ClassifierRecall",
    "ContentDistance",
    "Declared",
    "DirectionLikeness",
    "Embedder",
    "Encoder",
    "FrechetDistance",
    "GramDistance",
    "GramError",
    "HistogramDistance",
    "ImageLikeness",
    "KernelDistance",
    "LightSimilarity",
    "Measurement",
    "Metric",
    "MomentDistance",
    "MultiscaleSSIM",
    "Networks",
    "RelativeStyle",
    "SelfSimilarityDivergence",
    "SetMetric",
    "Strengths",
    "StructureSimilarity",
    "Style",
    "StyleLeakage",
    "WordLikeness",
    "bradley_terry",
    "flicker",
    "measure",
    "warping_error",
]

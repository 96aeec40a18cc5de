from .classifier import Classifier, fold
from .hypercolumn_decoder import HypercolumnDecoder

__all__ = ["Classifier", "HypercolumnDecoder", "fold"]

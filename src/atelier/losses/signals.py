"""Style signals of a batch: each picture's are nearer to those of its own style than to the other styles'."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Where all styles of a batch are the same, nothing is there to be told apart.
_NOTHING = 1e-6


class SignalContrast:
    """Style signal contrastive loss (Wang et al. 2023, eqs. 7 and 8).

    The sum over the pictures i of d(i, i) / sum of d(i, j) over all j other than i, where d(i, j) is the
    distance between the signals of picture i and style j: mean squared differences, summed over the signals
    (B, C, 1, 1). Gradients reach both sides, because the paper trains what reads the styles too. 0 for a
    batch of one. In the published code a term of d(i, j) compares with picture j in place of style j; here
    all terms are the paper's.

    >>> styles, pictures = (torch.tensor(values).view(2, 1, 1, 1) for values in ([0.0, 2.0], [0.0, 1.0]))
    >>> SignalContrast([styles])([styles]).item(), SignalContrast([styles])([pictures]).item()
    (0.0, 1.0)
    """

    def __init__(self, target: Sequence[Tensor]) -> None:
        self.target = target

    def __call__(self, signals: Sequence[Tensor]) -> Tensor:
        pairs = zip(signals, self.target, strict=True)
        apart = torch.stack([_distances(found, wanted) for found, wanted in pairs]).sum(0)
        own = apart.diagonal()
        if len(own) < 2:
            return own.sum() * 0
        others = apart.sum(1) - own
        return (own / others.clamp(min=_NOTHING)).sum()


def _distances(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared differences (B, B) between each picture's signal and each style's."""
    return (found.flatten(1).float()[:, None] - wanted.flatten(1).float()[None]).square().mean(2)

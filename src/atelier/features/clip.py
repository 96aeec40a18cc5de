"""CLIP: one space for pictures and words (Radford et al. 2021), by the networks of transformers.

Weights of OpenAI and OpenCLIP load from the store, a folder or a file, and nothing is ever downloaded here.
Preprocessing is done in torch, so that similarities have gradients with respect to the pixels.

Methods take the towers as an interface: another network that encodes pictures can stand in for CLIP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from atelier.core import extras
from atelier.core.errors import UsageError, WeightsError
from atelier.features.clip_layout import (
    MEAN,
    STD,
    Activation,
    Beside,
    Triple,
    beside,
    layout_of,
    official_names,
)
from atelier.store import checkpoints, weights
from atelier.store.records import records

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

#: The extra and the package that CLIP needs.
EXTRA, PACKAGES = "text", ("transformers",)

_FILES = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")


class ImageTower(Protocol):
    """A frozen network that encodes pictures as vectors."""

    @property
    def side(self) -> int:
        """Height and width of the input in pixels."""
        ...

    def image(self, pictures: Tensor) -> Tensor:
        """The encodings (B, D) of pictures (B, 3, side, side), RGB in 0..1, differentiable; any length."""
        ...


class Tower(ImageTower, Protocol):
    """A frozen network that encodes pictures and words as vectors of one space."""

    def text(self, prompts: Sequence[str]) -> Tensor:
        """The encodings (N, D) of the prompts, of any length."""
        ...


class Clip:
    """Both towers of CLIP, frozen. `tokenizer` is None for weights without a vocabulary beside them."""

    def __init__(
        self,
        model: CLIPModel,
        tokenizer: CLIPTokenizer | None = None,
        *,
        mean: Triple = MEAN,
        std: Triple = STD,
        name: str = "CLIP",
    ) -> None:
        self.model: Any = nn.Module.eval(model.requires_grad_(False))
        self.tokenizer, self.mean, self.std, self.name = tokenizer, mean, std, name

    @property
    def side(self) -> int:
        return int(self.model.config.vision_config.image_size)

    @property
    def width(self) -> int:
        """The number of channels of an encoding."""
        return int(self.model.config.projection_dim)

    def image(self, pictures: Tensor) -> Tensor:
        pixels = normalised(pictures.float(), self.mean, self.std).to(self._dtype(self.model.vision_model))
        found: Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return found.float()

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """Raises UsageError for a prompt that is too long, and WeightsError without a vocabulary."""
        if self.tokenizer is None:
            raise WeightsError(
                f"{self.name} has no vocabulary: put vocab.json and merges.txt, or tokenizer.json, beside it"
            )
        most = int(self.model.config.text_config.max_position_embeddings)
        tokens = self.tokenizer(list(prompts), padding=True, return_tensors="pt")
        if tokens["input_ids"].shape[1] > most:
            count = tokens["input_ids"].shape[1] - 2
            raise UsageError(f"a style in words has {count} tokens, and CLIP reads {most - 2}: shorten it")
        device = self.model.device
        # Attention is causal: what follows the end of a sentence does not count, and needs no mask.
        found: Tensor = self.model.get_text_features(input_ids=tokens["input_ids"].to(device)).pooler_output
        return found.float()

    def prepare(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move to `device` and convert the image tower to `dtype`; words are read in float32."""
        self.model.to(device=device)
        for part in (self.model.vision_model, self.model.visual_projection):
            part.to(dtype=dtype or self._dtype(part))
        return self

    @staticmethod
    def _dtype(part: nn.Module) -> torch.dtype:
        return next(part.parameters()).dtype


def normalised(pictures: Tensor, mean: Triple = MEAN, std: Triple = STD) -> Tensor:
    """Pictures (B, 3, H, W) in 0..1 less CLIP's mean, divided by its deviation."""
    return (pictures - pictures.new_tensor(mean)[:, None, None]) / pictures.new_tensor(std)[:, None, None]


# The towers may be loaded by a method that runs in inference mode and kept for one that needs gradients.
@torch.inference_mode(False)
def load(name: str | Path) -> Clip:
    """Load CLIP from the store by name, or from a folder or file, in float32 on the CPU.

    Raises WeightsError if the weights are missing or not a CLIP's, and ResourceError without transformers.
    """
    file = _file(name)
    extras.require("transformers", EXTRA, "CLIP")
    known, state = beside(file.parent), weights.load(file)
    try:
        model = _model(official_names(state), _activation(name, state, known))
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from error
    mean, std = _normalisation(str(name)) or (known.mean, known.std)
    return Clip(model, tokenizer(file.parent), mean=mean, std=std, name=str(name))


def check(name: str | Path) -> None:
    """Raise what `load` raises for weights that are missing, without reading them."""
    _file(name)


def _file(name: str | Path) -> Path:
    """The file of tensors that a name, folder or file stands for. Raises WeightsError."""
    path = Path(name).expanduser() if weights.is_path(name) else weights.locate(str(name))
    if not path.is_dir():
        return path
    found = [path / one for one in _FILES if (path / one).is_file()]
    if found:
        return found[0]
    pickles = [one.name for one in sorted(path.glob("*pytorch_model.bin"))]
    remedy = (
        f"name the file itself, {path / pickles[0]}"
        if pickles
        else "use a folder of transformers or OpenCLIP"
    )
    raise WeightsError(f"{path} holds no {_FILES[0]} or {_FILES[1]}: {remedy}")


def _activation(name: str | Path, state: Mapping[str, Tensor], known: Beside) -> Activation:
    """QuickGELU for OpenAI's networks; else as the settings say, or what the layout's library assumes."""
    if str(name).endswith(".openai") or "input_resolution" in state:
        return "quick_gelu"
    return known.activation or ("gelu" if "visual.conv1.weight" in state else "quick_gelu")


def _normalisation(name: str) -> tuple[Triple, Triple] | None:
    """What a record says of the mean and deviation; None for other weights."""
    return next((known.normalisation for known in records() if known.name == name), None)


def _model(state: dict[str, Tensor], activation: Activation) -> CLIPModel:
    """The network for tensors under transformers' names. Raises WeightsError if some are missing."""
    from transformers import CLIPConfig, CLIPModel

    vocabulary, _ = state["text_model.embeddings.token_embedding.weight"].shape
    patch = state["vision_model.embeddings.patch_embedding.weight"].shape[-1]
    places = state["vision_model.embeddings.position_embedding.weight"].shape[0] - 1
    shared: dict[str, Any] = {"projection_dim": state["text_projection.weight"].shape[0]}
    text = layout_of(state, "text").settings(activation) | {
        "vocab_size": vocabulary,
        "max_position_embeddings": state["text_model.embeddings.position_embedding.weight"].shape[0],
        "bos_token_id": vocabulary - 2,
        "eos_token_id": vocabulary - 1,
    }
    vision = layout_of(state, "vision").settings(activation) | {
        "patch_size": patch,
        "image_size": patch * round(places**0.5),
    }
    with torch.device("meta"):  # no time for random weights that are replaced
        model = CLIPModel(CLIPConfig(text_config=text | shared, vision_config=vision | shared, **shared))
    checkpoints.check_state({key: value.shape for key, value in model.state_dict().items()}, state, "CLIP")
    model.load_state_dict(state, assign=True)
    for embeddings in (model.text_model.embeddings, model.vision_model.embeddings):
        embeddings.position_ids = torch.arange(embeddings.position_ids.shape[1])[None]
    return model


def tokenizer(folder: Path) -> CLIPTokenizer | None:
    """The tokenizer of the vocabulary in a folder, or of any installed CLIP: all read the same one."""
    from transformers import CLIPTokenizer

    installed = (
        one.name for one in records() if one.name.startswith("clip_") and weights.installed(one.name)
    )
    for place in (folder, *map(weights.where, installed)):
        if (place / "vocab.json").is_file() and (place / "merges.txt").is_file():
            return CLIPTokenizer(vocab=str(place / "vocab.json"), merges=str(place / "merges.txt"))
        if (place / "tokenizer.json").is_file():
            found: CLIPTokenizer = CLIPTokenizer.from_pretrained(place, local_files_only=True)
            return found
    return None

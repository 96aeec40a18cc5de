"""Settings of training runs. This module does not import torch, so that help and docs load quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from pydantic import BaseModel, ConfigDict, Field

from atelier.core.errors import TrainingError

if TYPE_CHECKING:
    from atelier.methods.base import Method

_PICTURES = "shards (.npz), folders, picture files, or glob patterns"


class Settings(BaseModel):
    """Settings of every training run. Subclasses add the fields of a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(1000, ge=1, description="Total training steps; a resumed run can use a higher value.")
    batch: int = Field(256, ge=1, description="Pictures per step, over all processes.")
    accumulate: int = Field(1, ge=1, description="Gradient accumulation: parts in which a batch is computed.")
    learning_rate: float = Field(0.15, gt=0, description="Learning rate between warm-up and cool-down.")
    warmup: int = Field(200, ge=0, description="Steps over which the learning rate rises from zero.")
    cooldown: float = Field(
        0.35, ge=0, le=1, description="Final fraction of the run, in which the learning rate falls to zero."
    )
    average: float = Field(0.998, ge=0, lt=1, description="Decay of the running average of the weights.")
    clip: float = Field(5.0, gt=0, description="Maximum gradient norm, for each optimiser.")
    seed: int = Field(0, ge=0, description="Seed of the weights, the sampling and the crops.")
    half: bool = Field(True, description="Mixed precision with bfloat16 (weights stay float32).")
    device: str = Field("auto", description="auto, cpu, cuda or mps.")
    evaluate_every: int = Field(500, ge=1, description="Steps between evaluations.")
    save_every: int = Field(200, ge=1, description="Steps between checkpoints.")


class EncoderSettings(Settings):
    """Settings for training the encoder, in addition to those of every run."""

    photos: tuple[str, ...] = Field(
        ..., description="Labelled shards of 64 px photographs (.npz files or glob patterns)."
    )
    validation: tuple[str, ...] = Field(..., description="Labelled shards for evaluation.")
    paintings: str | None = Field(None, description="Folder with one sub-folder of paintings per style.")
    scenes: tuple[str, ...] = Field(
        (), description="Larger photographs for the style head and the statistics."
    )
    widths: tuple[int, ...] = Field((32, 64, 128, 256, 256), description="Channels of each stage.")
    depths: tuple[int, ...] = Field((2, 2, 3, 3, 2), description="Convolutions of each stage.")
    sizes: tuple[int, ...] = Field((32, 40, 48, 64), description="Picture sizes before the cool-down.")
    late_sizes: tuple[int, ...] = Field((48, 56, 64, 64, 80), description="Picture sizes in the cool-down.")
    smallest: float = Field(0.4, gt=0, le=1, description="Smallest crop, as a fraction of the short side.")
    colour: float = Field(0.4, ge=0, le=1, description="Strength of the colour augmentation.")
    blur: float = Field(0.15, ge=0, le=1, description="Fraction of the pictures that are blurred.")
    style_start: int = Field(
        0,
        ge=0,
        description="First step of training the style head; earlier batches hold photographs only.",
    )
    style_share: float = Field(
        0.125, ge=0, le=1, description="Pictures for the style head, as a fraction of the batch."
    )
    style_weight: float = Field(0.3, ge=0, description="Weight of the style head's loss.")
    smoothing: float = Field(0.1, ge=0, lt=1, description="Label smoothing.")
    decay: float = Field(5e-4, ge=0, description="Weight decay, on convolutions and linear layers only.")
    judged: int = Field(
        4000, ge=1, description="Validation pictures used at each evaluation; the export uses all of them."
    )


class MethodSettings(Settings):
    """Settings of every run that trains a method. A method's `Training` can change the defaults."""

    steps: int = Field(
        20_000, ge=1, description="Total training steps; a resumed run can use a higher value."
    )
    batch: int = Field(8, ge=1, description="Pictures (or pairs) per step, over all processes.")
    crop: int = Field(160, ge=16, le=2048, description="Side of the square crops in pixels.")
    held_back: int = Field(
        16,
        ge=0,
        description="Pictures of each source that are held out for evaluation; 0 disables evaluation.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Learning rate between warm-up and cool-down.")
    warmup: int = Field(50, ge=0, description="Steps over which the learning rate rises from zero.")
    cooldown: float = Field(
        0.7, ge=0, le=1, description="Final fraction of the run, in which the learning rate falls to zero."
    )
    clip: float = Field(1.0, gt=0, description="Maximum gradient norm, for each optimiser.")
    average: float = Field(0.999, ge=0, lt=1, description="Decay of the running average of the weights.")
    start: str = Field(
        "", description="Weights to start from, such as those of an earlier run: a name, or a file."
    )
    workers: int = Field(
        0, ge=0, le=256, description="Processes that load pictures; 0 loads them in the training process."
    )
    cache: int = Field(1024, ge=0, description="Memory in MiB for decoded pictures, over all workers.")


class PairSettings(MethodSettings):
    """Photos and paintings, drawn independently."""

    photos: tuple[str, ...] = Field(..., description=f"Photos: {_PICTURES}.")
    paintings: tuple[str, ...] = Field(..., description=f"Paintings: {_PICTURES}.")
    sheet: tuple[str, ...] = Field(
        (), description="Pictures to preview at each evaluation: photo, painting, photo, painting, ..."
    )
    photo_zoom: float = Field(
        0.5, gt=0, le=1, description="Smallest crop, as a fraction of a photo's short side."
    )
    painting_zoom: float = Field(
        0.33, gt=0, le=1, description="Smallest crop, as a fraction of a painting's short side."
    )


class StylesSettings(MethodSettings):
    """Photos, and a fixed set of style pictures."""

    photos: tuple[str, ...] = Field(..., description=f"Photos: {_PICTURES}.")
    paintings: tuple[str, ...] = Field(
        ..., description="Picture files and folders; each picture is a style, numbered in this order."
    )
    sheet: tuple[str, ...] = Field(
        (), description="Pictures to preview at each evaluation: photo, painting, photo, painting, ..."
    )
    held_back: int = Field(4, ge=0, description="Photos that are held out for evaluation.")
    photo_zoom: float = Field(
        0.5, gt=0, le=1, description="Smallest crop, as a fraction of a photo's short side."
    )
    style_side: int = Field(256, ge=16, le=4096, description="Long side of the style pictures in pixels.")


class OneStyleSettings(MethodSettings):
    """Photos and one style picture."""

    photos: tuple[str, ...] = Field(..., description=f"Photos: {_PICTURES}.")
    style: str = Field(..., description="The style picture.")
    sheet: tuple[str, ...] = Field((), description="Photos to preview at each evaluation.")
    held_back: int = Field(4, ge=0, description="Photos that are held out for evaluation.")
    photo_zoom: float = Field(
        0.5, gt=0, le=1, description="Smallest crop, as a fraction of a photo's short side."
    )
    style_side: int = Field(256, ge=16, le=4096, description="Long side of the style picture in pixels.")


class PaintedSettings(OneStyleSettings):
    """Photos, and one style picture in which another method paints them before the training."""

    painted_side: int = Field(
        384, ge=32, le=2048, description="Long side in pixels at which photos are painted."
    )
    painted_most: int = Field(100, ge=1, description="Photos that are painted, at most; evenly spaced.")


class PicturesSettings(MethodSettings):
    """Pictures of one kind."""

    pictures: tuple[str, ...] = Field(..., description=f"Pictures: {_PICTURES}.")
    sheet: tuple[str, ...] = Field((), description="Pictures to preview at each evaluation.")
    zoom: float = Field(
        0.125, gt=0, le=1, description="Smallest crop, as a fraction of a picture's short side."
    )


class DomainsSettings(MethodSettings):
    """Two sets of pictures that the method translates between."""

    a: tuple[str, ...] = Field(..., description=f"Pictures of the first domain: {_PICTURES}.")
    b: tuple[str, ...] = Field(..., description=f"Pictures of the second domain: {_PICTURES}.")
    sheet: tuple[str, ...] = Field((), description="Pictures to preview at each evaluation.")
    zoom: float = Field(0.5, gt=0, le=1, description="Smallest crop, as part of a picture's short side.")


class LabelledSettings(MethodSettings):
    """Two or more folders, each a named domain. Batches draw equally from the domains on average."""

    domain: tuple[str, ...] = Field(
        ..., description="Domains as NAME=FOLDER (or NAME=SHARD); at least two are needed."
    )
    sheet: tuple[str, ...] = Field((), description="Pictures to preview at each evaluation.")
    zoom: float = Field(0.5, gt=0, le=1, description="Smallest crop, as part of a picture's short side.")


class CaptionedSettings(MethodSettings):
    """Pictures with captions, each in a .txt file of the same name."""

    pictures: tuple[str, ...] = Field(
        ..., description="Folders of pictures, each with a .txt caption file of the same name."
    )
    sheet: tuple[str, ...] = Field((), description="Pictures to preview at each evaluation.")
    zoom: float = Field(1.0, gt=0, le=1, description="Smallest crop, as part of a picture's short side.")
    flip: bool = Field(
        False, description="Mirror half of the pictures; leave off if captions mention left or right."
    )


class CompositesSettings(MethodSettings):
    """Photos with masks of their objects, and paintings in several styles."""

    photos: tuple[str, ...] = Field(..., description="Folders of photos.")
    masks: str = Field(
        ...,
        description="Folder with a PNG of the name of each photo: black, and one shade of grey an object.",
    )
    paintings: str = Field(..., description="Folder with one sub-folder of paintings per style.")
    sheet: tuple[str, ...] = Field((), description="Pictures to preview at each evaluation.")


class ReferencesSettings(MethodSettings):
    """Captioned pictures, sorted by style and by content, of which pairs are drawn."""

    same_style: str = Field(
        ..., description="Folder with one sub-folder per style, of pictures with .txt captions."
    )
    same_content: str = Field(
        ...,
        description="Folder with one sub-folder per content, of captioned pictures in several styles.",
    )
    sheet: tuple[str, ...] = Field(
        (), description="Pictures to preview at each evaluation: photo, style, photo, style, ..."
    )
    shares: tuple[float, float, float] = Field(
        (1.0, 1.0, 1.0),
        description="How often pairs of one style, pairs of one content, and single pictures are drawn.",
    )


class BucketedSettings(MethodSettings):
    """Folders of pictures with tags, trained in aspect buckets."""

    pictures: tuple[str, ...] = Field(
        ...,
        description="Folders of pictures with captions in .txt files, or of folders N_name, seen N times.",
    )
    trigger: str = Field("", description="Words in front of every caption, which call the style.")
    shuffle: bool = Field(True, description="Shuffle the tags of captions at every step.")
    keep: int = Field(
        0, ge=0, description="Tags at the start of captions, behind the trigger, that stay in place."
    )
    dropped: float = Field(0.1, ge=0, le=1, description="Share of captions that are left out.")
    tags_dropped: float = Field(0.0, ge=0, le=1, description="Share of tags that are left out.")
    wildcards: bool = Field(False, description="Draw one of {red|green} in captions at every step.")
    buckets: bool = Field(
        True, description="Keep the shape of pictures, in buckets; otherwise crop to squares."
    )
    bucket_step: int = Field(64, ge=8, le=512, multiple_of=8, description="Steps between sides of buckets.")
    bucket_least: int = Field(256, ge=8, description="Shortest side of buckets in pixels.")
    bucket_most: int = Field(1024, ge=8, description="Longest side of buckets in pixels.")
    upscale: bool = Field(True, description="Enlarge pictures that are smaller than their bucket.")
    flip: bool = Field(
        False, description="Mirror half of the pictures; leave off if captions mention left or right."
    )
    sheet: tuple[str, ...] = Field((), description="Photos to preview at each evaluation.")
    samples: tuple[str, ...] = Field(
        (), description="Words to draw at each evaluation, every evaluate_every steps."
    )


#: The settings that each kind of data set adds; see `atelier.methods.trainable.DataKind`.
DATA: dict[str, type[MethodSettings]] = {
    "pairs": PairSettings,
    "styles": StylesSettings,
    "one_style": OneStyleSettings,
    "painted": PaintedSettings,
    "pictures": PicturesSettings,
    "domains": DomainsSettings,
    "labelled": LabelledSettings,
    "referenced": LabelledSettings,
    "captioned": CaptionedSettings,
    "composites": CompositesSettings,
    "references": ReferencesSettings,
    "bucketed": BucketedSettings,
}


def settings_of(kind: type[Method]) -> type[MethodSettings]:
    """The settings for training a method: its own, those of its data set, and those of every run."""
    if kind.Training is None:
        raise TrainingError(f"{kind.name} has no network to train")
    return cast(
        "type[MethodSettings]", type(f"{kind.__name__}Settings", (kind.Training, DATA[kind.data]), {})
    )


def rate(step: int, settings: Settings) -> float:
    """The learning rate factor at a step: warm-up, constant, then linear to zero (Hägele et al. 2024)."""
    cool = max(1, round(settings.cooldown * settings.steps))
    rising = (step + 1) / settings.warmup if step < settings.warmup else 1.0
    return min(rising, (settings.steps - step) / cool, 1.0)


class WordsSettings(BaseModel):
    """Settings for fitting a model of words. Nothing is trained by descent, so there are no steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pictures: str = Field(..., description="Folder of the paintings that the index lists.")
    index: str = Field(
        ...,
        description="CSV file, a row a painting: file, and style, artist, title, source_path if known.",
    )
    encoder: str = Field(
        "encoder.atelier", description="Encoder whose statistics are predicted: a name, or a file."
    )
    drawn: int = Field(
        8, ge=0, le=100, description="Drawn examples for each technique that is learned from them."
    )
    components: int = Field(64, ge=2, le=512, description="Components in which statistics are predicted.")
    prototypes: int = Field(72, ge=1, le=1024, description="Pictures whose statistics answer texts.")
    ranks: tuple[int, ...] = Field(
        (8, 10, 12, 16), description="Factors of the correlations at the four layers, from fine to coarse."
    )
    shrinkage: float = Field(10.0, gt=0, description="Pictures that speak against the effect of a word.")
    least: int = Field(7, ge=2, description="Pictures that a word needs.")
    worst: float = Field(0.8, ge=0, le=1, description="Least area under the curve of a word, held out.")
    seed: int = Field(0, ge=0, description="Seed of the folds.")
    device: str = Field("auto", description="auto, cpu, cuda or mps.")

"""The base class of methods and the data they receive; training is in `trainable`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from atelier.core.docstrings import first_paragraph
from atelier.core.knobs import Knobs
from atelier.core.progress import Progress
from atelier.methods.portable import Portable
from atelier.methods.trainable import Batch, Trainable

if TYPE_CHECKING:
    import torch

__all__ = ["Batch", "Job", "Method", "Paper"]


@dataclass(frozen=True)
class Paper:
    """The paper that a method implements."""

    authors: str
    year: int
    title: str
    url: str


@dataclass(frozen=True)
class Takes:
    """The inputs that a method takes, as data; flags, schema, errors and docs are generated from it.

    `content` is "required", "optional", "size" (only its size is used) or "none"; all but methods that
    require one also make pictures without a content (`generate`). `styles` lists the supported kinds of
    style: "picture", "text" and "trained" (by name); the method needs at least `least` styles and takes at
    most `most`. `mask` is "optional" (the shared control), or "required" if the method itself needs the
    region to work on, as in harmonising a composite.
    """

    content: Literal["required", "optional", "size", "none"] = "required"
    styles: frozenset[StyleKind] = frozenset({"picture"})
    least: int = 1
    most: int | None = None
    mask: Literal["optional", "required"] = "optional"


StyleKind = Literal["picture", "text", "trained"]


@dataclass(frozen=True)
class Styles:
    """The styles of a run, as the method receives them.

    `pictures` are (1, 3, H, W) sRGB 0..1 on the device, with the long side of `Method.style_side` times the
    style scale; hidden pixels are filled with the nearest visible colour. `seen` holds their alpha
    (1, 1, H, W), or None if all pixels are visible; `texts` are prompts and `trained` names. Each kind has
    its own weights; together they sum to 1. `scale` is the size of the style relative to the content, which
    pictures already have.
    """

    pictures: Sequence[torch.Tensor] = ()
    weights: Sequence[float] = ()
    seen: Sequence[torch.Tensor | None] = ()
    texts: Sequence[str] = ()
    text_weights: Sequence[float] = ()
    trained: Sequence[str] = ()
    trained_weights: Sequence[float] = ()
    scale: float = 1.0


@dataclass(frozen=True)
class Context:
    """The settings shared by all pictures of a run.

    `size` is the long side in pixels and `dtype` the precision of networks. `files` holds the opened files
    of the file knobs: a Picture, a NumPy array, or a tuple of them.
    """

    device: torch.device
    dtype: torch.dtype
    seed: int = 0
    size: int = 512
    files: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Frame:
    """One picture to paint: `content` (1, 3, H, W) with its alpha `seen` (1, 1, H, W) or None.

    If there is no photo, `blank` is true and `content` is a grey canvas of the requested size.
    `strength` is 1 unless the method declares that it handles strength itself. `regions`, each style's
    share of every pixel (K, 1, H, W), is None unless the method handles regions. `mask` (1, 1, H, W) is set
    only for a method that requires one. In a video, `previous` is the previous result (1, 3, H, W), and
    `flow` (1, 2, H, W) gives each pixel's offset in pixels (right, down) to its position in `previous`;
    `known` (1, 1, H, W) is 1 where that position shows the same place. `memory` is what the method left there
    while it painted the frame before; None outside a video.
    """

    content: torch.Tensor
    seen: torch.Tensor | None = None
    strength: float = 1.0
    progress: Progress = field(default_factory=Progress)
    regions: torch.Tensor | None = None
    mask: torch.Tensor | None = None
    previous: torch.Tensor | None = None
    flow: torch.Tensor | None = None
    blank: bool = False
    known: torch.Tensor | None = None
    memory: MutableMapping[str, torch.Tensor] | None = None


@dataclass(frozen=True)
class Result:
    """The picture (1, 3, H, W) that a method made, and its artifacts as bytes, by knob name."""

    picture: torch.Tensor
    artifacts: Mapping[str, bytes] = field(default_factory=dict)


#: Paints one picture; made by `Method.prepare`.
Painter = Callable[[Frame], Result]


@dataclass
class Job:
    """One picture to make, with its styles and frame: the argument of `Method.transfer`.

    `content` is (1, 3, H, W) and each of `styles` (1, 3, H', W'), float32 sRGB in 0..1 on `device`;
    `style_weights` sum to 1 with those of the texts and trained styles. See `Styles`, `Context` and `Frame`.
    """

    content: torch.Tensor
    styles: Sequence[torch.Tensor]
    style_weights: Sequence[float]
    device: torch.device
    dtype: torch.dtype
    seed: int = 0
    strength: float = 1.0
    progress: Progress = field(default_factory=Progress)
    regions: torch.Tensor | None = None
    content_seen: torch.Tensor | None = None
    styles_seen: Sequence[torch.Tensor | None] = ()
    texts: Sequence[str] = ()
    text_weights: Sequence[float] = ()
    trained: Sequence[str] = ()
    trained_weights: Sequence[float] = ()
    style_scale: float = 1.0
    mask: torch.Tensor | None = None
    files: Mapping[str, Any] = field(default_factory=dict)
    previous: torch.Tensor | None = None
    flow: torch.Tensor | None = None
    blank: bool = False
    known: torch.Tensor | None = None
    memory: MutableMapping[str, torch.Tensor] | None = None

    @classmethod
    def of(cls, styles: Styles, context: Context, frame: Frame) -> Job:
        """The job for one frame."""
        return cls(
            content=frame.content,
            styles=styles.pictures,
            style_weights=styles.weights,
            device=context.device,
            dtype=context.dtype,
            seed=context.seed,
            strength=frame.strength,
            progress=frame.progress,
            regions=frame.regions,
            content_seen=frame.seen,
            styles_seen=styles.seen,
            texts=styles.texts,
            text_weights=styles.text_weights,
            trained=styles.trained,
            trained_weights=styles.trained_weights,
            style_scale=styles.scale,
            mask=frame.mask,
            files=context.files,
            previous=frame.previous,
            flow=frame.flow,
            blank=frame.blank,
            known=frame.known,
            memory=frame.memory,
        )

    @property
    def looks(self) -> Styles:
        """The styles, as `prepare` takes them."""
        return Styles(
            pictures=self.styles,
            weights=self.style_weights,
            seen=self.styles_seen or [None] * len(self.styles),
            texts=self.texts,
            text_weights=self.text_weights,
            trained=self.trained,
            trained_weights=self.trained_weights,
            scale=self.style_scale,
        )

    @property
    def context(self) -> Context:
        """The settings shared by all pictures, as `prepare` takes them."""
        return Context(self.device, self.dtype, self.seed, max(self.content.shape[-2:]), self.files)

    @property
    def frame(self) -> Frame:
        """The picture to paint, as a painter takes it."""
        return Frame(
            self.content,
            self.content_seen,
            self.strength,
            self.progress,
            self.regions,
            self.mask,
            self.previous,
            self.flow,
            self.blank,
            self.known,
            self.memory,
        )


class Method(Trainable):
    """Base of every method. The class's docstring is its one-sentence description."""

    name: ClassVar[str]
    paper: ClassVar[Paper]
    Knobs: ClassVar[type[Knobs]]
    #: Controls that the method handles itself, better than the shared code: "strength", "styles", "regions".
    native: ClassVar[frozenset[str]] = frozenset()
    #: The content, styles and mask that it takes.
    takes: ClassVar[Takes] = Takes()
    #: Whether frames of a clip may be painted at the same time: quick methods that never read `previous`.
    frames_at_once: ClassVar[bool] = False
    #: The values that newer knobs stand for in a receipt that was written before they existed.
    before: ClassVar[Mapping[str, Any]] = {}
    #: Knobs that an exported network does not depend on: those of what comes before and after it.
    apart: ClassVar[frozenset[str]] = frozenset({"half"})
    #: The extra that it needs (`pip install 'atelier[EXTRA]'`) and the packages to check for.
    extra: ClassVar[str] = ""
    packages: ClassVar[Sequence[str]] = ()
    #: Height and width are padded to multiples of this; the padding is cropped from the result.
    multiple: ClassVar[int] = 1
    #: Whether it uses half precision on devices where that is fast.
    half: ClassVar[bool] = True
    #: Knobs by `--quality` name; every method has "draft", "good" and "best", some have more.
    qualities: ClassVar[Mapping[str, Mapping[str, Any]]] = {"draft": {}, "good": {}, "best": {}}
    #: The long side in pixels by quality, when no size is asked for.
    sizes: ClassVar[Mapping[str, int]] = {"draft": 384, "good": 512, "best": 768}

    def transfer(self, job: Job, knobs: Any) -> torch.Tensor | Result:
        """The picture, (1, 3, H, W) of the content's size, alone or with artifacts.

        A method overrides either this, the simple way, or `prepare`, which reads the styles once for many
        pictures.
        """
        return self.prepare(job.looks, knobs, job.context)(job.frame)

    def prepare(self, styles: Styles, knobs: Any, context: Context) -> Painter:
        """A painter for pictures of one size in these styles; loads networks and reads styles only once."""

        def paint(frame: Frame) -> Result:
            made = self.transfer(Job.of(styles, context, frame), knobs)
            return made if isinstance(made, Result) else Result(made)

        return paint

    def portable(self, styles: Styles, knobs: Any, context: Context) -> Portable:
        """The network as `atelier export` writes it, in these styles; without any, they are its input.

        Not abstract: methods that are more than one pass of a network have none.
        """
        raise NotImplementedError

    @classmethod
    def is_portable(cls) -> bool:
        """Whether the method has a network to export."""
        return cls.portable is not Method.portable

    def picture(self, job: Job, knobs: Any) -> torch.Tensor:
        """The picture alone, (1, 3, H, W)."""
        made = self.transfer(job, knobs)
        return made.picture if isinstance(made, Result) else made

    def weights(self, knobs: Any) -> Sequence[str]:
        """Names or paths of the weights and other files that these knobs use, for the recipe."""
        return ()

    def text_weights(self, knobs: Any) -> Sequence[str]:
        """Names or paths of the weights that these knobs use to read styles in words, for the recipe."""
        return ()

    def named(self, knobs: Any) -> Mapping[str, Sequence[str]]:
        """What text knobs may name in the network that these knobs load, by knob; for lists."""
        return {}

    def reading(self, texts: Sequence[str], knobs: Any) -> str:
        """How the texts were read, for the recipe and the user; empty if there is nothing to say."""
        return ""

    def style_side(self, knobs: Any, side: int) -> int:
        """The long side of styles for a result with a long side of `side`; larger ones would be shrunk."""
        return side

    def look(self, job: Job, knobs: Any) -> None:
        """Compute the styles' features and leave them in the cache; does nothing by default."""

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """Tiny weights from a fixed seed, by weights knob, for the tests of every method."""
        return {}

    @classmethod
    def family(cls) -> str:
        """The folder of the method's file: "optimise", "classical", ..."""
        return cls.__module__.rsplit(".", 2)[-2]

    @classmethod
    def summary(cls) -> str:
        """The one-sentence description for lists."""
        return first_paragraph(cls)

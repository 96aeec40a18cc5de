"""Methods: what each must say of itself, and how they are found.

A method is one file below `atelier/methods/<family>/` (or in a folder that the environment
variable ATELIER_METHODS names). The registry finds it there; nothing else has to be told.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from atelier.core.errors import AtelierError, UsageError, did_you_mean
from atelier.core.knobs import Knobs
from atelier.core.progress import Progress

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel


@dataclass(frozen=True)
class Paper:
    """Where a method comes from."""

    authors: str
    year: int
    title: str
    url: str


@dataclass
class Job:
    """One picture to make: what every method gets, already prepared.

    `content` is (1, 3, H, W) and each of `styles` (1, 3, H', W'), float32 sRGB in 0..1 on `device`;
    `style_weights` sum to 1. `dtype` is what networks should compute in. `strength` is 1 unless the
    method declares that it handles strength itself, and `regions`, each style's share of every pixel
    (K, 1, H, W), is None unless it handles those.
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


@dataclass(frozen=True)
class Batch:
    """What a step of training sees: photos and paintings (B, 3, S, S), float32 sRGB in 0..1.

    `generator` is on the CPU and seeded by the step, so that a resumed run draws what an unbroken one
    would have drawn.
    """

    photos: torch.Tensor
    paintings: torch.Tensor
    step: int
    generator: torch.Generator


class Method:
    """Base of every method. The class's docstring is its one-sentence description."""

    name: ClassVar[str]
    paper: ClassVar[Paper]
    Knobs: ClassVar[type[Knobs]]
    #: Controls that the method does itself, better than the shared way: "strength", "styles", "regions".
    native: ClassVar[frozenset[str]] = frozenset()
    #: Whether there is nothing to do without a style picture; else one may be left out.
    needs_style: ClassVar[bool] = True
    #: Knobs by `--quality` name; "draft", "good" and "best" everywhere, more where a method has them.
    qualities: ClassVar[Mapping[str, Mapping[str, Any]]] = {"draft": {}, "good": {}, "best": {}}
    #: The long side in pixels by quality, when no size is asked for.
    sizes: ClassVar[Mapping[str, int]] = {"draft": 384, "good": 512, "best": 768}

    def transfer(self, job: Job, knobs: Any) -> torch.Tensor:
        """The picture, (1, 3, H, W) of the content's size."""
        raise NotImplementedError

    def weights(self, knobs: Any) -> Sequence[str]:
        """Names or paths of the weights and other files that these knobs use, for the recipe."""
        return ()

    def look(self, job: Job, knobs: Any) -> None:
        """Look at the styles alone and leave what is worth keeping in the cache; nothing by default."""

    # training, for a method that has a network of its own

    #: The knobs of its training; they also set other defaults for the loop's own (steps, batch, crop, ...).
    Training: ClassVar[type[BaseModel] | None] = None

    def network(self, training: Any) -> torch.nn.Module:
        """What is trained, new from torch's global seed; its state dict is what the knob `weights` names."""
        raise NotImplementedError

    def losses(self, network: torch.nn.Module, batch: Batch, training: Any) -> dict[str, torch.Tensor]:
        """The weighted terms of one step by name; their sum is minimised."""
        raise NotImplementedError

    @classmethod
    def tiny(cls) -> Mapping[str, Mapping[str, torch.Tensor]]:
        """Tiny weights from a fixed seed by the knob that names them, for the tests of every method."""
        return {}

    @classmethod
    def family(cls) -> str:
        """The folder that the method's file lies in: "optimise", "classical", ..."""
        return cls.__module__.rsplit(".", 2)[-2]

    @classmethod
    def summary(cls) -> str:
        """The one sentence that lists show."""
        return (inspect.getdoc(cls) or "").split("\n\n")[0].replace("\n", " ")


@cache
def methods() -> Mapping[str, type[Method]]:
    """Every method by name, in alphabetical order. Raises AtelierError when two share a name."""
    found: dict[str, type[Method]] = {}
    for module in _modules():
        for kind in _declared(module):
            if kind.name in found:
                other = found[kind.name].__module__
                raise AtelierError(
                    f"two methods are called '{kind.name}': {other} and {module.__name__}; rename one"
                )
            found[kind.name] = kind
    return dict(sorted(found.items()))


def find(name: str) -> type[Method]:
    """The method called `name`. Raises UsageError with the nearest name."""
    if name not in methods():
        raise UsageError(f"there is no method '{name}': {did_you_mean(name, methods())}")
    return methods()[name]


def knobs_for(method: type[Method], quality: str, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen knobs over those of a quality. Raises UsageError for a quality that is not there."""
    if quality not in method.qualities:
        known = did_you_mean(quality, method.qualities)
        raise UsageError(f"{method.name} has no quality '{quality}': {known}")
    return {**method.qualities[quality], **chosen}


def _declared(module: ModuleType) -> Iterator[type[Method]]:
    """The method classes of a file; one whose name starts with _ is a base of others."""
    for value in vars(module).values():
        if not (
            isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
        ):
            continue
        if value.__name__.startswith("_"):
            continue
        for needed in ("name", "paper", "Knobs"):
            if not hasattr(value, needed):
                raise AtelierError(f"the method {value.__name__} in {module.__file__} declares no '{needed}'")
        yield value


def _modules() -> Iterator[ModuleType]:
    package = importlib.import_module("atelier.methods")
    for info in pkgutil.walk_packages(package.__path__, "atelier.methods."):
        # A file outside a family is no method: TEMPLATE.py is there to be copied.
        if not info.ispkg and info.name.count(".") > 2:
            yield importlib.import_module(info.name)
    for folder in filter(None, os.environ.get("ATELIER_METHODS", "").split(os.pathsep)):
        if not Path(folder).is_dir():
            raise AtelierError(f"ATELIER_METHODS names '{folder}', which is no folder: mend it or unset it")
        yield from (_load(path) for path in sorted(Path(folder).resolve().glob("[!_]*.py")))


def _load(path: Path) -> ModuleType:
    """A method file from outside the package, under a name of its own."""
    folder = hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]
    name = f"atelier_methods_{folder}.{path.parent.name.replace('.', '_')}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        reason = " ".join(str(error).split())
        raise AtelierError(
            f"the method file {path} cannot be loaded: {type(error).__name__}: {reason}; mend it, or take "
            "its folder out of ATELIER_METHODS"
        ) from error
    return module

"""A method's network with its settings, ready to be written for another program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import __version__
from atelier.core import knobs as knob_rules
from atelier.core.errors import UsageError, did_you_mean
from atelier.images import Picture
from atelier.methods import registry
from atelier.methods.base import Context, Method, Styles
from atelier.methods.portable import Portable
from atelier.session import inputs as given
from atelier.session.controls import settle
from atelier.session.inputs import Anything
from atelier.session.run import style_tensors
from atelier.store import records, weights

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Exported:
    """A network to write, the method that it belongs to, and the styles that are part of it."""

    kind: type[Method]
    knobs: knob_rules.Knobs
    portable: Portable
    styles: tuple[Picture, ...]

    def facts(self) -> dict[str, str]:
        """The lines of the file's metadata, all beginning with `atelier.`."""
        method = self.kind()
        used = [str(name) for name in method.weights(self.knobs)]
        lines = {
            "version": __version__,
            "method": self.kind.name,
            "summary": self.kind.summary(),
            "paper": f"{self.kind.paper.authors} {self.kind.paper.year}, {self.kind.paper.title}",
            "weights": "\n".join(f"{_shown(name)} sha256:{weights.fingerprint(name)}" for name in used),
            "licence": "\n".join(dict.fromkeys(_licence(name) for name in used)),
            "knobs": self.knobs.model_dump_json(
                exclude={*knob_rules.files_of(type(self.knobs)), *self.kind.apart}
            ),
            "styles": "\n".join(f"{Path(one.name).name} sha256:{one.sha256}" for one in self.styles),
            "smallest_side": str(self.portable.smallest),
            **{f"input.{one.name}": one.says for one in self.portable.inputs},
            **{f"labels.{one.name}": "\n".join(one.labels) for one in self.portable.inputs if one.labels},
            **self.portable.facts,
        }
        return {f"atelier.{name}": value for name, value in lines.items() if value}


def names() -> list[str]:
    """The methods that have a network to export.

    >>> "johnson" in names(), "gatys" in names()
    (True, False)
    """
    return [name for name, kind in registry.list_methods().items() if kind.is_portable()]


def find(method: str) -> type[Method]:
    """The method, if it has a network to export. Raises UsageError if it has none."""
    kind = registry.find(method)
    if not kind.is_portable():
        near = did_you_mean(method, names())
        raise UsageError(f"{method} is not one pass of a network, so it cannot be exported: {near}")
    return kind


def load(
    method: str,
    style: Anything | None = None,
    *,
    size: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Exported:
    """The network of `method` with these knobs; the `style`, if given, becomes part of it.

    `size` is the long side in pixels of the pictures that the style is for; by default the method's.
    Raises UsageError, InputError or WeightsError with one sentence.
    """
    import torch

    kind = find(method)
    controls, knobs, _ = settle(kind, "good", dict(settings or {}))
    styles, pictures = Styles(), tuple[Picture, ...]()
    device = torch.device("cpu")
    side = size or kind.sizes["good"]
    made = kind()
    if style is not None:
        inputs = given.read(kind, controls, knobs, content=None, style=style)
        styles = style_tensors(inputs, made.style_side(knobs, side), controls.style_scale, device)
        pictures = tuple(inputs.styles)
    portable = made.portable(styles, knobs, Context(device, torch.float32, controls.seed, side))
    return Exported(kind, knobs, portable, pictures)


def examples(portable: Portable, height: int, width: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Inputs with these sides: soft shades with grain for pictures, random numbers for the rest."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    made = []
    for number, one in enumerate(portable.inputs):
        # Other grids get other sides, so that nothing ties them together.
        more = 0 if one.grid == portable.inputs[0].grid else 3 + number
        shape = one.shape(height + more, width + 2 * more)
        values = torch.rand(shape, generator=generator)
        if one.kind == "picture":
            y = torch.linspace(0, 3, shape[2])[:, None]
            x = torch.linspace(0, 4, shape[3])
            shades = torch.stack([(x + y).sin(), (x - y).cos(), (x * y).sin()])[None]
            values = (0.5 + 0.35 * shades + 0.2 * (values - 0.5)).clamp(0, 1)
        elif one.kind == "shares":
            values = values / values.sum()
        elif one.kind == "features":
            values = values - 0.5
        made.append(values)
    return tuple(made)


def _shown(name: str) -> str:
    """The name of weights, without the folders of the user's own file."""
    return Path(name).name if weights.is_path(name) else name


def _licence(name: str) -> str:
    if weights.is_path(name):
        return f"{_shown(name)}: {weights.metadata(name).get('licence', 'your own weights')}"
    return f"{name}: {records.record(name).licence}"

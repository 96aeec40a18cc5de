"""`atelier export`: one call that writes an ONNX file or a page, and says what is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.core.errors import OutputError, UsageError
from atelier.exports import networks, onnx
from atelier.session.inputs import Anything

#: What a file's name may end in.
SUFFIXES = (".onnx", ".html")


@dataclass(frozen=True)
class Written:
    """A file that was written: what is in it, and how far it is from torch (None if not compared)."""

    path: Path
    exported: networks.Exported
    checked: onnx.Checked | None

    def facts(self) -> dict[str, Any]:
        """As data, for scripts."""
        return {
            "output": str(self.path),
            "bytes": self.path.stat().st_size,
            "opset": onnx.OPSET,
            "inputs": {one.name: one.says for one in self.exported.portable.inputs},
            "difference": None if self.checked is None else self.checked.largest,
            "metadata": self.exported.facts(),
        }

    def lines(self) -> list[str]:
        """For people."""
        size = self.path.stat().st_size / 2**20
        lines = [f"{self.path}  {size:.1f} MiB, opset {onnx.OPSET}"]
        for one in self.exported.portable.inputs:
            shape = " x ".join(map(str, (1, one.channels, *(one.sides or ()))))
            lines.append(f"input {one.name}  {shape}: {one.says}")
        if self.checked is None:
            return [*lines, "not compared with torch"]
        sizes = ", ".join(f"{width} x {height}" for height, width in self.checked.sizes)
        return [*lines, f"differs from torch by at most {self.checked.largest:.1g} of 1 (at {sizes})"]


def export(
    method: str,
    output: Path,
    *,
    style: Anything | None = None,
    size: int | None = None,
    check: bool = True,
    runtime: Path | None = None,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> Written:
    """Write the network of `method` as `output`: an ONNX file, or a page with all that it needs.

    `style` becomes part of the network, for pictures with a long side of `size`. With `check`, nothing is
    written unless onnxruntime and torch agree. `runtime` is the folder of onnxruntime-web for a page.
    Raises UsageError, InputError, WeightsError, OutputError or ResourceError with one sentence.
    """
    from atelier.exports import web

    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"'{output}' must end in .onnx for a network or in .html for a page")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists: choose another name, or add --overwrite")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"the folder '{output.parent}' does not exist: create it first")
    networks.find(method)
    onnx.require_packages(check=check)
    engine = web.runtime(runtime) if suffix == ".html" else None
    exported = networks.load(method, style, size=size, settings=settings)
    if engine is None:
        return Written(output, exported, onnx.write(exported, output, check=check))
    return Written(output, exported, web.write(exported, output, engine, check=check))

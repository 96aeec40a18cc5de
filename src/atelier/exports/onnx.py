"""ONNX files: a method's network with free sides, checked against torch before it is written.

The metadata says what is in the file: versions, method, paper, weights with their hashes, licences, and what
each input takes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier import __version__
from atelier.core.atomic import atomic
from atelier.core.errors import AtelierError
from atelier.core.extras import require
from atelier.exports import networks
from atelier.exports.networks import Exported

if TYPE_CHECKING:
    from atelier.methods.portable import Portable

#: The version of ONNX's operators: the newest that runtimes of several years read.
OPSET = 18
#: The largest difference to torch that is allowed, in units of 0..1.
TOLERANCE = 1e-3
#: The sides (height, width) at which the file is compared with torch, as multiples of the smallest side.
SIDES = ((2.0, 2.0), (1.59, 2.09), (1.03, 3.16))

_WHAT = "an ONNX file"


@dataclass(frozen=True)
class Checked:
    """How far a file is from torch: (height, width) of each comparison, and the largest difference in it."""

    sizes: Sequence[tuple[int, int]]
    differences: Sequence[float]

    @property
    def largest(self) -> float:
        """The largest difference, in units of 0..1."""
        return max(self.differences)


def require_packages(*, check: bool = True) -> None:
    """Raises ResourceError, with the command that installs them, if a package is missing."""
    for package in ("onnx", "onnxscript", *(("onnxruntime",) if check else ())):
        require(package, "export", _WHAT)


def encode(exported: Exported) -> bytes:
    """The ONNX file of a network, with its metadata."""
    require_packages(check=False)
    model = _translated(exported.portable)
    model.producer_name, model.producer_version = "atelier", __version__
    model.doc_string = exported.kind.summary()
    facts = exported.facts() | {"atelier.opset": str(OPSET)}
    del model.metadata_props[:]
    for key, value in facts.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    data: bytes = model.SerializeToString()
    return data


def compare(data: bytes, portable: Portable) -> Checked:
    """Run the file in onnxruntime and the network in torch at several sizes.

    Raises AtelierError where they differ by more than `TOLERANCE`.
    """
    import torch

    session = _session(data)
    module = portable.module()
    smallest = portable.smallest
    sizes = [(round(smallest * tall), round(smallest * wide)) for tall, wide in SIDES]
    differences = []
    for number, (height, width) in enumerate(sizes):
        inputs = networks.examples(portable, height, width, seed=number)
        with torch.inference_mode():
            wanted = module(*inputs).numpy()
        names = [one.name for one in portable.inputs]
        found = session.run(None, dict(zip(names, (one.numpy() for one in inputs), strict=True)))[0]
        if found.shape != wanted.shape:
            raise AtelierError(
                f"the file makes {found.shape} where torch makes {wanted.shape}; please report it"
            )
        differences.append(float(abs(found - wanted).max()))
    checked = Checked(sizes, differences)
    if not checked.largest <= TOLERANCE:
        raise AtelierError(
            f"the file differs from torch by {checked.largest:.2g}, more than {TOLERANCE:g}, so it was not "
            "written; please report it, or write it anyway with --no-check"
        )
    return checked


def write(exported: Exported, path: Path, *, check: bool = True) -> Checked | None:
    """Write the network as an ONNX file; with `check`, only if it agrees with torch.

    Raises ResourceError, OutputError or AtelierError with one sentence.
    """
    require_packages(check=check)
    data = encode(exported)
    checked = compare(data, exported.portable) if check else None
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return checked


def _session(data: bytes) -> Any:
    runtime = require("onnxruntime", "export", "the check of an ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _translated(portable: Portable) -> Any:
    """The network as an ONNX model, by torch's exporter."""
    import torch

    # Odd sides of no round ratio: a size that the exporter would take for fixed shows.
    smallest = portable.smallest
    example = networks.examples(portable, 2 * smallest + 7, 2 * smallest + 22)
    # With gradients on, layers that are rewritten for speed in torch keep their plain form.
    with _quiet(), torch.enable_grad():
        program = torch.export.export(
            portable.module(),
            example,
            dynamic_shapes={"inputs": tuple(_free_sides(portable))},
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        written = torch.onnx.export(
            program,
            input_names=[one.name for one in portable.inputs],
            output_names=["picture"],
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    assert written is not None
    model = written.model_proto
    _name_sides(model, portable)
    return model


def _free_sides(portable: Portable) -> Iterator[dict[int, Any] | None]:
    """The free dimensions of each input, as torch names them."""
    import torch

    known: dict[str, Any] = {}
    for one in portable.inputs:
        if one.sides is None:
            yield None
            continue
        for side in one.sides:
            known.setdefault(side, torch.export.Dim(side, min=portable.smallest, max=32768))
        yield {place: one.finer * known[side] for place, side in zip((2, 3), one.sides, strict=True)}


def _name_sides(model: Any, portable: Portable) -> None:
    """Give the free sides their names, which the exporter may have lost in its arithmetic."""
    picture = (model.graph.output[0], portable.inputs[0].sides, portable.scale)
    inputs = zip(model.graph.input, portable.inputs, strict=True)
    for value, sides, times in [picture, *((value, one.sides, one.finer) for value, one in inputs)]:
        for place, name in zip((2, 3), sides or (), strict=False):
            dimension = value.type.tensor_type.shape.dim[place]
            dimension.dim_param = name if times == 1 else f"{times}*{name}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own progress, which are meant for its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

"""Prepared painters: many pictures in one style give what each would give alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from atelier.core import knobs as knob_rules
from atelier.methods import registry
from atelier.methods.base import Job, Method
from atelier.store import cache, weights

Floats = npt.NDArray[np.float32]
Kind = type[Method]

pytestmark = pytest.mark.parametrize("kind", registry.list_methods().values(), ids=registry.list_methods())

#: Methods that look at their styles in `prepare`; later pictures neither load nor look again.
PREPARES = (
    "adain",
    "cap_vstnet",
    "clipstyler",
    "clipstyler_fast",
    "ghiasi",
    "johnson",
    "microast",
    "msgnet",
    "nnst_d",
    "wct",
)


def tensor(pixels: Floats) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def test_a_prepared_painter_gives_what_a_transfer_gives(
    kind: Kind, tiny: dict[str, Any], photo: Floats, painting: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {name: value for name, value in tiny.items() if name in kind.Knobs.model_fields}
    knobs = knob_rules.parse(kind.Knobs, registry.knobs_for(kind, "good", given))
    alpha = torch.ones(1, 1, *painting.shape[:2])
    alpha[..., :10] = 0
    first = Job(
        tensor(photo), [tensor(painting)], [1.0], torch.device("cpu"), torch.float32, styles_seen=[alpha]
    )
    jobs = [first, dataclasses.replace(first, content=tensor(1 - photo), strength=0.5)]
    expected = [kind().picture(job, knobs) for job in jobs]
    painter = kind().prepare(first.looks, knobs, first.context)
    if kind.name in PREPARES:
        for module, name in ((cache, "remember"), (weights, "load")):
            if kind.name == "nnst_d":
                painter(first.frame)  # its styles are looked at at each size when that is first needed
            monkeypatch.setattr(module, name, lambda *args: pytest.fail("it was loaded or looked at again"))
    made = [painter(job.frame).picture for job in jobs]
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))

"""Two CPU processes give the same steps as one process with the same batch."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from PIL import Image
from safetensors.torch import load_file, save_file

import atelier
from atelier.training.processes import Processes

SOURCE = Path(atelier.__file__).parents[1]
SCRIPT = Path(__file__).with_name("several_processes.py")
_spec = importlib.util.spec_from_file_location("several_processes", SCRIPT)
script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(script)


#: One worker runs them all: the runs of two processes are made once.
pytestmark = pytest.mark.xdist_group("processes")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path) -> Path:
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, grey in (("a", 60), ("b", 180)):
        (folder / name).mkdir()
        for index in range(8):
            pixels = random.integers(grey - 40, grey + 40, (36 + index, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    (folder / "encoder.safetensors").write_bytes(tiny_encoder.read_bytes())
    return folder


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes, which find each other on this machine, left their results."""
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    several = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    started = []
    for rank in ("0", "1"):
        here = {**os.environ, **several, "RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": str(SOURCE)}
        with (out / f"log-{rank}").open("w") as log:
            command = [sys.executable, "-W", "ignore", str(SCRIPT), str(data), str(out)]
            started.append(subprocess.Popen(command, env=here, stdout=log, stderr=subprocess.STDOUT))
    codes = [process.wait(timeout=200) for process in started]
    assert codes == [0, 0], "\n".join((out / f"log-{rank}").read_text()[-3000:] for rank in (0, 1))
    return out


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which this process alone left the same runs."""
    script.AcceleratorState._reset_state(reset_partial_state=True)
    out = tmp_path_factory.mktemp("one")
    for name, run in script.compared(data, out).items():
        save_file(script.tensors(run), out / f"{name}-0.safetensors")
    return out


def test_two_processes_match_one_process(one: Path, two: Path) -> None:
    alone = load_file(one / "pair-0.safetensors")
    both = [load_file(two / f"pair-{rank}.safetensors") for rank in (0, 1)]
    assert alone.keys() == both[0].keys() == both[1].keys()
    for key, value in alone.items():
        assert torch.equal(both[0][key], both[1][key]), key
        # Sums in another order, and Adam divides by the size of gradients that may be tiny.
        assert torch.allclose(both[0][key], value, rtol=1e-3, atol=1e-5), key
    assert not torch.equal(alone["/networks/generator/seen"], torch.zeros(3))


def test_a_network_keeps_its_attributes_in_two_processes(one: Path, two: Path) -> None:
    """The decoder of nnst_d is asked for `value`, `scale` and `guides`; the first step sets the scale."""
    alone, both = (load_file(folder / "nnst_d-0.safetensors") for folder in (one, two))
    scale = "/networks/network/scale"
    assert alone[scale].min() > 0
    assert torch.allclose(both[scale], alone[scale], rtol=1e-5)
    lines = [json.loads((folder / "nnst_d" / "log.jsonl").read_text()) for folder in (one, two)]
    assert lines[0].keys() == lines[1].keys() >= {"match", "near", "moments", "gradient"}
    for name in lines[0].keys() - {"seconds"}:
        # The moments are relative to those of the whole batch, which each process has a half of. Layers that
        # start at zero have tiny gradients, whose rounding Adam's first step turns into steps of full size.
        assert lines[1][name] == pytest.approx(lines[0][name], rel=5e-3, abs=1e-4), name


def test_the_main_process_exports_and_logs_once(two: Path) -> None:
    assert load_file(two / "nnst_d-exported.safetensors")["value.weight"].dtype == torch.float16
    assert len((two / "pair" / "log.jsonl").read_text().splitlines()) == 1
    assert [path.name for path in (two / "pair").glob("checkpoint*")] == [
        "checkpoint-0000008-1.safetensors",
        "checkpoint-0000008.safetensors",
    ]


def test_two_processes_stop_together_and_resume_with_their_own_pools(two: Path) -> None:
    pools = []
    for rank in (0, 1):
        whole, parts = (load_file(two / f"{name}-{rank}.safetensors") for name in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        for key, value in whole.items():
            assert torch.equal(parts[key], value), key
        pools.append(whole["/state/pool/images/0"])
    assert not torch.equal(*pools)
    assert sorted(path.name for path in (two / "parts").glob("checkpoint*")) == [
        "checkpoint-0000003-1.safetensors",
        "checkpoint-0000003.safetensors",
        "checkpoint-0000008-1.safetensors",
        "checkpoint-0000008.safetensors",
    ]


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_sharded_modes_are_an_error(kind: str) -> None:
    accelerator = SimpleNamespace(distributed_type=DistributedType(kind))
    with pytest.raises(script.TrainingError, match=f"training does not support Accelerate's {kind} mode"):
        Processes(accelerator)


def test_resuming_pools_with_fewer_processes_is_an_error(data: Path, two: Path) -> None:
    one = script.task(script.Pooled, data)
    run = script.Run(one, one.settings, two / "whole")
    with pytest.raises(script.TrainingError, match="holds the states of 2 processes"):
        run.resume()

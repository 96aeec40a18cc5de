"""LoRA files made without training: merged into a pipeline, and extracted from the difference of two."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from atelier.core.atomic import atomic
from atelier.core.errors import OutputError, UsageError, WeightsError
from atelier.pipelines import stable_diffusion_layout as layout
from atelier.pipelines.lora import Adapter, Kind, Lora, Place, layers, merged, read
from atelier.pipelines.lora_metadata import hashes
from atelier.store import checkpoints, weights

_KINDS: tuple[Kind, ...] = ("unet", "text")


# merging


def merge(base: str, files: Sequence[tuple[str, float]], out: Path) -> None:
    """Write `base` with LoRA files merged into it, each as strongly as its number says.

    A folder gives a folder, and a single file a .safetensors file with the same names and precision. Raises
    OutputError where `out` exists or cannot be, and WeightsError for files that do not fit.
    """
    if not files:
        raise UsageError("there is nothing to merge: give at least one LoRA file")
    parts = layout.find(base).settled()
    path = Path(base).expanduser() if weights.is_path(base) else weights.locate(base)
    _check_output(out, folder=path.is_dir())
    found = [(read(name, parts), share) for name, share in files]
    if path.is_dir():
        _merge_folder(path, found, out)
    else:
        _merge_file(path, found, out)


def _check_output(out: Path, *, folder: bool) -> None:
    if out.exists():
        raise OutputError(f"'{out}' exists: choose another name")
    if not out.absolute().parent.is_dir():
        raise OutputError(f"the folder '{out.absolute().parent}' does not exist: create it first")
    if not folder and out.suffix != ".safetensors":
        raise OutputError(f"'{out}' must end with .safetensors, because the base is a single file")


def _change(
    state: layout.State, names: Mapping[str, str], loras: Sequence[tuple[Lora, float]], kind: Kind
) -> bool:
    """Merge into tensors that have other names, by those of the layers; says whether any changed."""
    changed = False
    for one, share in loras:
        some = {path: pair for (where, path), pair in one.adapters.items() if where == kind}
        wanted = {f"{path}.weight": state[names[f"{path}.weight"]] for path in some}
        for name, value in merged(wanted, some, share).items():
            state[names[name]] = value
            changed = True
    return changed


def _merge_folder(path: Path, loras: Sequence[tuple[Lora, float]], out: Path) -> None:
    """A copy of the folder, whose networks are written anew where a LoRA changes them."""
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.absolute().parent))
    try:
        shutil.copytree(path, temporary, dirs_exist_ok=True)
        for kind in _KINDS:
            folder, stem = layout.place_in_folder(temporary, kind)
            state = layout.tensors_in(folder, stem)
            names = {name.removeprefix("text_model."): name for name in state}
            if _change(state, names, loras, kind):
                for old in [
                    one
                    for suffix in ("safetensors", "bin", "json")
                    for one in folder.glob(f"{stem}*.{suffix}")
                ]:
                    old.unlink()
                checkpoints.write_safetensors(folder / f"{stem}.safetensors", state, {"format": "pt"})
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _merge_file(path: Path, loras: Sequence[tuple[Lora, float]], out: Path) -> None:
    """The single file, with the layers changed under the names that it has."""
    state = checkpoints.read_checkpoint(path)
    for kind in _KINDS:
        _change(state, layout.names_in_file(state, kind), loras, kind)
    metadata = checkpoints.read_metadata(path)
    with atomic(out) as temporary:
        checkpoints.write_safetensors(temporary, state, metadata)


# extracting


def extract(
    tuned: str, base: str, rank: int, out: Path, *, convolutions: bool = False, least: float = 1e-6
) -> dict[str, float]:
    """Write the difference of two pipelines as a LoRA of this rank; returns what share of it the file keeps.

    The change of each layer is cut to its largest singular values, which is the nearest matrix of that rank
    (Eckart & Young 1936). The layers are those of sd-scripts' default, and all others with `convolutions`;
    those that differ by less than `least` of their size are left out. Raises WeightsError if the pipelines
    are alike or have other shapes.
    """
    _check_output(out, folder=False)
    parts = layout.find(tuned), layout.find(base)
    known = layers(parts[1])
    if layers(parts[0]) != known:
        raise WeightsError(
            f"{tuned} and {base} have networks of other sizes: use two models of the 1.x series"
        )
    adapters: dict[Place, Adapter] = {}
    squares = kept = 0.0
    for kind in _KINDS:
        after, before = (getattr(one, kind).read() for one in parts)
        for place in (one for one in known if one[0] == kind and (convolutions or _usual(one))):
            name = f"{place[1]}.weight"
            change = after[name].double() - before[name].double()
            if float(change.norm()) <= least * float(before[name].double().norm()):
                continue
            adapters[place], share = _factors(change, rank)
            squares, kept = squares + float(change.square().sum()), kept + share
    if not adapters:
        raise WeightsError(f"{tuned} and {base} have the same weights: there is nothing to extract")
    _write(Lora(adapters, "kohya", {}), rank, out)
    return {"layers": len(adapters), "kept": kept / squares}


def _usual(place: Place) -> bool:
    """Whether sd-scripts changes this layer by default."""
    kind, path = place
    return kind == "text" or ".transformer_blocks." in path or path.endswith((".proj_in", ".proj_out"))


def _factors(change: Tensor, rank: int) -> tuple[Adapter, float]:
    """The nearest matrices of a rank to a change (out, in, ...), and the squares that they keep."""
    flat = change.flatten(1)
    wide = flat.shape[1] > flat.shape[0]
    # The squared singular values are those of the smaller Gram matrix, which is quick to take apart.
    values, vectors = torch.linalg.eigh(flat @ flat.T if wide else flat.T @ flat)
    best = vectors[:, -rank:].flip(1)
    up, down = (best, best.T @ flat) if wide else (flat @ best, best.T)
    count = down.shape[0]
    # Both get the root of a singular value, so that neither is beyond the range of float16.
    roots = values[-count:].flip(0).clamp(min=1e-30) ** 0.25
    scale = (roots[:, None], 1 / roots) if not wide else (1 / roots[:, None], roots)
    down, up = scale[0] * down, up * scale[1]
    down = down.view(count, *change.shape[1:])
    up = up.view(up.shape[0], count, *[1] * (change.ndim - 2))
    adapter = Adapter(down.float().contiguous(), up.float().contiguous(), float(count))
    return adapter, float(values[-count:].clamp(min=0).sum())


def _write(made: Lora, rank: int, out: Path) -> None:
    metadata = {
        "ss_base_model_version": "sd_v1",
        "ss_network_alpha": str(float(rank)),
        "ss_network_dim": str(rank),
        "ss_network_module": "networks.lora",
        "ss_v2": "False",
    }
    write(made, metadata, out)


def write(made: Lora, metadata: dict[str, str], out: Path) -> None:
    """Write a LoRA in kohya's layout, in half precision; the same one always gives the same bytes."""
    state = {
        name: one.detach().cpu().half() if one.is_floating_point() else one
        for name, one in made.state().items()
    }
    with atomic(out) as temporary:
        checkpoints.write_safetensors(temporary, state, metadata | hashes(state, metadata))

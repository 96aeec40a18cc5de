"""What is done with LoRA files: looking into them, merging them into a pipeline, and extracting them.

Files and pipelines are named as in requests: records, files of the weights folder, and networks that were
made here. Results are put among the latter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atelier.core.errors import UsageError
from atelier.core.progress import Event
from atelier.studio.jobs import Job
from atelier.studio.limits import display_name

if TYPE_CHECKING:
    from atelier.studio.service import Studio


def inspected(studio: Studio, name: str) -> dict[str, Any]:
    """What a LoRA file says of itself. Raises UsageError and WeightsError."""
    from atelier.pipelines import lora

    return lora.inspect(_settled(studio, "LoRA", name))


def pipelines(studio: Studio) -> list[str]:
    """The Stable Diffusion pipelines that are here: installed ones, then files."""
    from atelier.store import records, weights

    known = [one.name for one in records.records() if one.name.startswith("stable_diffusion")]
    return [*(name for name in known if weights.installed(name)), *studio.weights.names()]


def merged(studio: Studio, base: str, loras: Sequence[tuple[str, float]], name: str) -> Job:
    """A job that writes a pipeline with LoRA files merged into it, each as strongly as its number says.

    A pipeline in a folder gives a folder, and a single file a file. Raises UsageError for other names.
    """
    from atelier.store import weights

    path = _settled(studio, "pipeline", base)
    whole = Path(path) if weights.is_path(path) else weights.locate(path)
    files = [(_settled(studio, "LoRA", one), share) for one, share in loras]
    out = _free(studio, name or "merged", "" if whole.is_dir() else ".safetensors")

    def work(job: Job) -> None:
        from atelier.pipelines import lora_changes

        job.listen(Event(0, 0, "merging"))
        lora_changes.merge(path, files, out)
        job.listen(Event(1, 1, "merging", note=f"Written: {out.name}."))

    return studio.queue.put(Job("weights", f"{len(files)} LoRA files merged into {base}", work))


def extracted(studio: Studio, tuned: str, base: str, rank: int, name: str, *, convolutions: bool) -> Job:
    """A job that writes the difference of two pipelines as a LoRA. Raises UsageError."""
    paths = _settled(studio, "pipeline", tuned), _settled(studio, "pipeline", base)
    out = _free(studio, name or "extracted")

    def work(job: Job) -> None:
        from atelier.pipelines import lora_changes

        job.listen(Event(0, 0, "extracting"))
        found = lora_changes.extract(*paths, rank, out, convolutions=convolutions)
        kept = f"{found['layers']:g} layers, {100 * found['kept']:.1f}% of their change"
        job.listen(Event(1, 1, "extracting", note=f"Written: {out.name}, {kept} at rank {rank}."))

    return studio.queue.put(Job("weights", f"LoRA extracted from {tuned}", work))


def _settled(studio: Studio, what: str, name: str) -> str:
    if not name:
        raise UsageError(f"no {what} is chosen: choose one, or start the studio with --weights FOLDER")
    return str(studio.weights.settle(what, name))


def _free(studio: Studio, name: str, suffix: str = ".safetensors") -> Path:
    """A file, or a folder, for a result; the same name again gets a number."""
    stem = display_name(name).removesuffix(".safetensors").strip(". ") or "network"
    number, path = 1, studio.networks / f"{stem}{suffix}"
    while path.exists():
        number += 1
        path = studio.networks / f"{stem}-{number}{suffix}"
    return path

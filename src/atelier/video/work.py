"""The work folder of an unfinished video: finished parts, and the frames since, with what the next one needs.

A frame is written whole and renamed, so a killed run leaves nothing half-written, and the next one goes on
with the frame after the last. Parts are encoded on their own, so the joined video is the same whether or not
a run was interrupted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

from atelier.core.atomic import atomic
from atelier.core.errors import OutputError, UsageError, first_line
from atelier.video import codecs
from atelier.video.codecs import Codec
from atelier.video.source import Pixels
from atelier.video.steady import Flicker, State

#: Frames of a part: as many as fit into so many bytes, within these limits.
_PART_BYTES, _FEWEST, _MOST = 128 << 20, 8, 48
_PLAN, _TIMES = "plan.json", "times"


class Work:
    """The folder beside the output that holds an unfinished video.

    `plan` holds everything that determines the frames; a run with another plan does not continue it.
    """

    def __init__(self, folder: Path, codec: Codec, rate: Fraction, size: tuple[int, int]) -> None:
        self.folder, self.codec, self.rate = folder, codec, rate
        self.length = min(_MOST, max(_FEWEST, _PART_BYTES // (size[0] * size[1] * 3)))
        self.done = 0
        self.state: State | None = None

    def begin(self, plan: dict[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Create the folder, or continue in it. Raises UsageError or OutputError where that is not meant."""
        if self.folder.exists() and not resume:
            if not overwrite:
                raise OutputError(
                    f"'{self.folder}' holds an unfinished run of this video: give --resume to go on, or "
                    "--overwrite to begin anew"
                )
            shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise OutputError(f"'{self.folder}' cannot be created ({error.strerror})") from error
        file = self.folder / _PLAN
        if file.exists():
            _compare(json.loads(file.read_text()), json.loads(json.dumps(plan)), self.folder)
        with atomic(file) as beside:
            beside.write_text(json.dumps(plan))
        self._continue()

    def _continue(self) -> None:
        numbers = sorted(
            int(path.stem) for path in self.folder.glob("*.safetensors") if path.stem.isdecimal()
        )
        for path in self.folder.glob(".*"):
            path.unlink()  # what was being written when a run was killed
        if numbers:
            self.done = numbers[-1] + 1
            self.state = self._read(numbers[-1])
            self._close_part()

    # frames

    def add(self, state: State, time: Fraction, duration: Fraction) -> None:
        """Store the next frame. Raises OutputError if the disk is full."""
        from safetensors.torch import save

        facts = {
            "time": str(time),
            "duration": str(duration),
            "scenes": state.scenes,
            **asdict(state.flicker),
        }
        data = save(_tensors(state), {"facts": json.dumps(facts)})
        with atomic(self._frame(self.done)) as beside:
            beside.write_bytes(data)
        self.done, self.state = self.done + 1, state
        self._close_part()

    def _close_part(self) -> None:
        """Encode the frames of a part that is complete, and remove all but the last."""
        part, over = divmod(self.done, self.length)
        if over:
            return
        frames = range((part - 1) * self.length, self.done)
        if not self._part(part - 1).exists():
            times = [self._facts(number) for number in frames]
            with atomic(self._times(part - 1)) as beside:
                beside.write_text(json.dumps([[one["time"], one["duration"]] for one in times]))
            with atomic(self._part(part - 1)) as beside:
                self.encode(beside, frames)
        for number in frames[:-1]:
            self._frame(number).unlink(missing_ok=True)
        if part > 1:
            self._frame(frames[0] - 1).unlink(missing_ok=True)

    def encode(self, path: Path, frames: Iterable[int]) -> None:
        """Encode stored frames."""
        codecs.encode(path, (self._read(number).result for number in frames), self.codec, self.rate)

    # what is finished

    def parts(self) -> Iterator[Path]:
        """The encoded parts in order; the last, incomplete one is encoded for this call."""
        whole, over = divmod(self.done, self.length)
        yield from (self._part(number) for number in range(whole))
        if over:
            with atomic(self.folder / "rest.mkv") as rest:
                self.encode(rest, range(whole * self.length, self.done))
                yield rest

    def times(self) -> Iterator[tuple[Fraction, Fraction]]:
        """Time and duration of each finished frame in seconds."""
        whole = self.done // self.length
        for part in range(whole):
            for time, duration in json.loads(self._times(part).read_text()):
                yield Fraction(time), Fraction(duration)
        for number in range(whole * self.length, self.done):
            facts = self._facts(number)
            yield Fraction(facts["time"]), Fraction(facts["duration"])

    def remove(self) -> None:
        """The video is finished."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # files

    def _frame(self, number: int) -> Path:
        return self.folder / f"{number:08}.safetensors"

    def _part(self, number: int) -> Path:
        return self.folder / f"part-{number:06}.mkv"

    def _times(self, number: int) -> Path:
        return self.folder / f"{_TIMES}-{number:06}.json"

    def _facts(self, number: int) -> dict[str, Any]:
        from safetensors import safe_open

        with safe_open(self._frame(number), "pt") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["facts"])
            return facts

    def _read(self, number: int) -> State:
        from safetensors.torch import load_file

        try:
            tensors, facts = load_file(self._frame(number)), self._facts(number)
        except Exception as error:
            raise OutputError(
                f"the unfinished run in '{self.folder}' is damaged ({first_line(error)}): give --overwrite "
                "to begin anew"
            ) from error
        result: Pixels = tensors.pop("result").numpy()
        flicker = Flicker(facts["result"], facts["content"], facts["pairs"])
        memory = {name.removeprefix("memory "): tensor for name, tensor in tensors.items()}
        return State(result, memory, flicker, facts["scenes"])


def _tensors(state: State) -> dict[str, Any]:
    import torch

    memory = {f"memory {name}": tensor.contiguous() for name, tensor in state.memory.items()}
    return {"result": torch.from_numpy(state.result), **memory}


def _compare(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    different = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    if different:
        raise UsageError(
            f"the unfinished run in '{folder}' had other settings ({', '.join(different)}): give the same, "
            "or --overwrite to begin anew"
        )

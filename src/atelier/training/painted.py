"""Photos painted before the training, by another method, for a network that learns to do the same at once.

Each photo lies beside its painting in one PNG file, whose name holds a hash of all that it was made from.
What is there already is used again, so a stopped run goes on where it was, and other settings make other
files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from atelier.core.atomic import atomic
from atelier.core.progress import Event, Progress
from atelier.training import data
from atelier.training.processes import Processes
from atelier.training.streams import Decoder, Entry, Stream

#: Paints a photo (1, 3, H, W) in 0..1 and reports its steps.
Paint = Callable[[Tensor, Progress], Tensor]


class Painter:
    """Paints photos with `paint` into a folder; `made_by` says by what settings and styles."""

    def __init__(self, paint: Paint, made_by: str, folder: Path, side: int, decoder: Decoder) -> None:
        self.paint, self.made_by, self.folder, self.side = paint, made_by, folder, side
        self.decoder = decoder

    def all(self, streams: Sequence[Stream], processes: Processes, progress: Progress) -> bool:
        """Paint what is missing, each process its share. Returns False if the listener stopped the work."""
        entries = [entry for stream in streams for source in stream.sources for entry in source.entries]
        mine = entries[processes.index :: processes.count]
        self.folder.mkdir(parents=True, exist_ok=True)
        for number, entry in enumerate(mine, start=1):
            self._one(entry, f"painting photo {number} of {len(mine)}", progress)
            if progress.stopped:
                break
        return not processes.anyone(progress.stopped)

    def painted(self, stream: Stream) -> Stream:
        """The stream of the files of a stream of photos."""
        sources = tuple(
            replace(
                source,
                entries=tuple(Entry(self._file(entry)) for entry in source.entries),
                # The files have the size of the paintings, and are not shrunk again.
                short_side=2 * self.side,
            )
            for source in stream.sources
        )
        return replace(stream, sources=sources, painted=True)

    def _photo(self, entry: Entry) -> data.Array:
        """The photo with a long side of `side` at most."""
        photo = self.decoder(entry, 1 << 20)
        height, width = photo.shape[:2]
        return data.shrink(photo, max(1, round(self.side * min(height, width) / max(height, width))))

    def _file(self, entry: Entry) -> Path:
        digest = hashlib.sha256(f"{self.made_by} {self.side}".encode())
        digest.update(self.decoder(entry, 1 << 20).tobytes())
        return self.folder / f"{entry.path.stem}-{digest.hexdigest()[:16]}.png"

    def _one(self, entry: Entry, stage: str, progress: Progress) -> None:
        path = self._file(entry)
        if path.exists():
            return

        def forward(event: Event) -> bool:
            return progress.report(event.done, event.total, stage=f"{stage}, {event.stage}")

        photo = self._photo(entry)
        given = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        made = self.paint(given, Progress(forward))[0].float().clamp(0, 1).cpu()
        if progress.stopped:  # the painting is not finished
            return
        pixels = (255 * made).round().byte().permute(1, 2, 0).numpy()
        with atomic(path) as temporary:
            encoded = cv2.imencode(".png", np.concatenate([photo, pixels], 1)[:, :, ::-1])
            temporary.write_bytes(encoded[1].tobytes())

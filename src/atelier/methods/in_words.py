"""Styles in words, for methods that match statistics of a style: what a closed vocabulary predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atelier.core.errors import UsageError
from atelier.store import weights

if TYPE_CHECKING:
    from atelier.features.words import Prediction
    from atelier.methods.base import Job

#: What the knob of such a method says.
KNOB = "Model that turns a style in words into statistics: a name, or a file."
DEFAULT = "words.atelier"


def predictions(job: Job, words: str, encoder: str) -> list[Prediction]:
    """The statistics of each of the job's texts, predicted by the model `words` for an encoder.

    Raises UsageError for unknown words, and if the model was trained for another encoder.
    """
    from atelier.features.words import load

    if not job.texts:
        return []
    model = load(words)
    if model.encoder != weights.fingerprint(encoder):
        raise UsageError(
            f"{words} predicts the statistics of another encoder than {encoder}: leave out --encoder, or fit "
            f"words to it with 'atelier train words --encoder {encoder}', or let a CLIP read the text"
        )
    return [model.predict(text) for text in job.texts]


def style_side(job: Job) -> float:
    """The long side in pixels of a style picture for this job, which its texts stand for."""
    return job.style_scale * max(job.content.shape[-2:])


def reading(texts: Sequence[str], words: str) -> str:
    """How the texts are read, as a sentence; empty without texts."""
    from atelier.features.words import load

    if not texts:
        return ""
    read = "; ".join(f"'{text}' as {', '.join(load(words).read(text))}" for text in texts)
    return f"words were read by the closed vocabulary of {words}, not by CLIP: {read}"

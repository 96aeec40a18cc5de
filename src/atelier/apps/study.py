"""A study at the terminal: serving its page, and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from atelier.apps.layout import columns as width
from atelier.apps.layout import table
from atelier.bench.scores import Score, scored
from atelier.bench.serving import server
from atelier.bench.study import FILE, Study
from atelier.core.errors import InputError


def serve(folder: Path, questions: Sequence[str], trials: int, host: str, port: int) -> Iterator[str]:
    """Serve a study until Ctrl-C; yields what to say."""
    study = Study(folder, questions=questions, trials=trials)
    try:
        with server(study, host, port) as made:
            yield f"{len(study.methods)} methods, {trials} questions for each participant"
            yield f"http://{host}:{made.server_port}/  (Ctrl-C ends it; votes are kept as they come)"
            made.serve_forever()
    except KeyboardInterrupt:
        yield f"{len(study.votes())} votes in {folder / FILE}"
    finally:
        study.close()


def scores(folder: Path) -> list[Score]:
    """The scores of the votes in a grid's folder. Raises InputError where there are none."""
    if not (folder / FILE).is_file():
        raise InputError(f"'{folder}' holds no votes ({FILE}): run `atelier study {folder}` first")
    study = Study(folder)
    try:
        votes = study.votes()
    finally:
        study.close()
    if not votes:
        raise InputError(f"'{folder / FILE}' holds no votes yet")
    return scored(votes)


def told(found: Sequence[Score]) -> str:
    """The scores, a table for each question."""
    parts = []
    for one in found:
        head = f"{one.question}: {one.votes} votes, {one.ties} ties, {one.people} participants"
        if one.strengths is None:
            parts.append(f"{head}\n{one.problem}")
            continue
        bounds = zip(one.methods, one.strengths.scores, one.strengths.low, one.strengths.high, strict=True)
        rows = [(name, f"{score:+.2f}", f"{low:+.2f} to {high:+.2f}") for name, score, low, high in bounds]
        parts.append(f"{head}\n{table(('method', 'strength', '95%'), rows, width())}")
    return "\n\n".join(parts)


def facts(found: Sequence[Score]) -> dict[str, Any]:
    """The same for scripts."""
    return {
        one.question: {
            "votes": one.votes,
            "ties": one.ties,
            "participants": one.people,
            "problem": one.problem,
            "strengths": None
            if one.strengths is None
            else {
                name: {"score": float(s), "low": float(low), "high": float(high)}
                for name, s, low, high in zip(
                    one.methods, one.strengths.scores, one.strengths.low, one.strengths.high, strict=True
                )
            },
        }
        for one in found
    }

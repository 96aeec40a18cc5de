"""A human study of a grid: two pictures beside each other, one question, votes in one SQLite file.

Every pair of methods is asked about equally often, on every content and style equally often, and each
method stands on the left as often as on the right. Now and then a trial has a known answer: who fails these
is not looking, and is left out of the scores.
"""

from __future__ import annotations

import random
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from atelier.bench.protocol import BASELINES
from atelier.bench.table import Table
from atelier.core.errors import InputError, UsageError, did_you_mean

#: The name of the file in a grid's folder.
FILE = "study.sqlite"
QUESTIONS = {
    "overall": "Which picture do you prefer, as the photo painted in the manner of the painting?",
    "style": "Which picture looks more like the work of whoever made the painting?",
    "content": "Which picture keeps more of what the photo shows?",
}
#: The question of a trial with a known answer, and after how many trials it comes.
CHECK, CHECK_EVERY = "Which of the two pictures is the photo itself, unchanged?", 10
Answer = Literal["left", "right", "tie"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS people (token TEXT PRIMARY KEY, number INTEGER UNIQUE, since REAL);
CREATE TABLE IF NOT EXISTS trials (
    id INTEGER PRIMARY KEY, token TEXT NOT NULL, number INTEGER NOT NULL, question TEXT NOT NULL,
    content TEXT NOT NULL, style TEXT NOT NULL, left_method TEXT NOT NULL, right_method TEXT NOT NULL,
    checks TEXT NOT NULL, answer TEXT, seconds REAL, at REAL, UNIQUE (token, number));
"""


@dataclass(frozen=True)
class Trial:
    """What is asked. `checks` is the known answer of an attention check, else empty."""

    id: int
    number: int
    question: str
    content: str
    style: str
    left: str
    right: str
    checks: str


class Study:
    """The trials and votes of a study on the grid in `folder`; safe to use from several threads.

    `trials` is the number for each participant. Raises InputError for a grid with fewer than two methods
    besides the baselines that have pictures of the same pairs, and UsageError for an unknown question.
    """

    def __init__(
        self, folder: Path, *, questions: Sequence[str] = ("overall",), trials: int = 40, seed: int = 0
    ) -> None:
        for name in questions:
            if name not in QUESTIONS:
                raise UsageError(f"there is no question '{name}': {did_you_mean(name, QUESTIONS)}")
        self.folder, self.questions, self.trials, self._seed = folder, tuple(questions), trials, seed
        self.pictures = _pictures(folder)
        self.methods = _methods(self.pictures)
        self._pairs = [
            pair
            for pair in combinations(sorted(self.methods), 2)
            if self.pictures[pair[0]].keys() & self.pictures[pair[1]].keys()
        ]
        if not self._pairs:
            raise InputError(
                f"the grid in '{folder}' has fewer than two methods with pictures: a study needs two"
            )
        self._lock = threading.Lock()
        self._base = sqlite3.connect(folder / FILE, isolation_level=None, check_same_thread=False)
        self._base.row_factory = sqlite3.Row
        self._base.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; {_SCHEMA}")

    def enter(self) -> str:
        """A new participant's token."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            count = self._base.execute("SELECT count(*) FROM people").fetchone()[0]
            self._base.execute("INSERT INTO people VALUES (?, ?, ?)", (token, count, time.time()))
        return token

    def next(self, token: str) -> Trial | None:
        """The participant's open trial, or a new one; None when all are answered.

        Whoever comes back goes on with the trial that was open. Raises UsageError for an unknown token.
        """
        with self._lock:
            person = self._base.execute("SELECT number FROM people WHERE token = ?", (token,)).fetchone()
            if person is None:
                raise UsageError("this participant is not known: start the study again")
            mine = self._base.execute("SELECT * FROM trials WHERE token = ? ORDER BY number", (token,))
            rows = mine.fetchall()
            if rows and rows[-1]["answer"] is None:
                return _trial(rows[-1])
            if len(rows) >= self.trials:
                return None
            return self._new(token, len(rows), random.Random(f"{self._seed} {person['number']} {len(rows)}"))

    def vote(self, token: str, trial: int, answer: Answer, seconds: float) -> bool:
        """Keep an answer; False where the trial is not this participant's open one, as for a second click."""
        if answer not in ("left", "right", "tie"):
            raise UsageError(f"'{answer}' is no answer: left, right or tie")
        with self._lock:
            done = self._base.execute(
                "UPDATE trials SET answer = ?, seconds = ?, at = ? WHERE id = ? AND token = ? "
                "AND answer IS NULL",
                (answer, seconds, time.time(), trial, token),
            )
        return done.rowcount == 1

    def votes(self) -> list[dict[str, Any]]:
        """Every answered trial, with its participant."""
        with self._lock:
            return [dict(row) for row in self._base.execute("SELECT * FROM trials WHERE answer NOT NULL")]

    def close(self) -> None:
        self._base.close()

    def _new(self, token: str, number: int, draw: random.Random) -> Trial:
        """Assign the trial that has been asked the least."""
        if number % CHECK_EVERY == CHECK_EVERY - 1 and (found := self._check(draw)) is not None:
            question, content, style, left, right, checks = found
        else:
            question, content, style, left, right = self._fairest(number, draw)
            checks = ""
        made = self._base.execute(
            "INSERT INTO trials (token, number, question, content, style, left_method, right_method, checks) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (token, number, question, content, style, left, right, checks),
        )
        assert made.lastrowid is not None
        return Trial(made.lastrowid, number, question, content, style, left, right, checks)

    def _fairest(self, number: int, draw: random.Random) -> tuple[str, str, str, str, str]:
        """The least asked pair of methods, on its least shown pair of pictures, on its rarer side."""
        asked = self._base.execute("SELECT * FROM trials WHERE checks = ''").fetchall()
        question = self.questions[number % len(self.questions)]
        pairs = Counter(_pair(row) for row in asked if row["question"] == question)
        first, second = _rarest(self._pairs, pairs, draw)
        shared = [place for place in self.pictures[first] if place in self.pictures[second]]
        shown = Counter((row["content"], row["style"]) for row in asked if _pair(row) == (first, second))
        content, style = _rarest(shared, shown, draw)
        lefts = Counter(row["left_method"] for row in asked if _pair(row) == (first, second))
        left = _rarest([first, second], lefts, draw)
        return question, content, style, left, second if left == first else first

    def _check(self, draw: random.Random) -> tuple[str, str, str, str, str, str] | None:
        """A trial with a known answer, where the grid has the untouched photos."""
        method = draw.choice(self.methods)
        shared = [place for place in self.pictures[method] if place in self.pictures.get("identity", {})]
        if not shared:
            return None
        content, style = draw.choice(shared)
        if draw.random() < 0.5:
            return "check", content, style, "identity", method, "left"
        return "check", content, style, method, "identity", "right"


def _pictures(folder: Path) -> dict[str, dict[tuple[str, str], str]]:
    """The key of every picture by method, then by content and style."""
    table = Table(folder)
    rows = table.rows("SELECT * FROM plan JOIN cells USING (key) WHERE state = 'done' ORDER BY place")
    table.close()
    found: dict[str, dict[tuple[str, str], str]] = {}
    for row in rows:
        found.setdefault(row["method"], {})[row["content"], row["style"]] = row["key"]
    return found


def _methods(pictures: Mapping[str, Mapping[tuple[str, str], str]]) -> list[str]:
    """The methods to compare: all but the baselines, as far as they share pictures with another."""
    real = [name for name in pictures if name not in {one.label for one in BASELINES}]
    return [
        name for name in real if any(pictures[name].keys() & pictures[o].keys() for o in real if o != name)
    ]


def _pair(row: Any) -> tuple[str, ...]:
    return tuple(sorted((row["left_method"], row["right_method"])))


def _rarest(choices: Sequence[Any], counts: Mapping[Any, int], draw: random.Random) -> Any:
    """One of the choices that were counted the least."""
    least = min(counts.get(choice, 0) for choice in choices)
    return draw.choice([choice for choice in choices if counts.get(choice, 0) == least])


def _trial(row: Any) -> Trial:
    return Trial(
        row["id"],
        row["number"],
        row["question"],
        row["content"],
        row["style"],
        row["left_method"],
        row["right_method"],
        row["checks"],
    )

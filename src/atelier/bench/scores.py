"""The scores of a study: Bradley-Terry strengths for each question, with bootstrap bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atelier.core.errors import InputError
from atelier.metrics.preference import Strengths, bradley_terry

#: Who fails more than this share of the attention checks is left out.
MOST_FAILED = 0.25


@dataclass(frozen=True)
class Score:
    """The answer to one question: methods from the strongest down, their strengths, and what counted.

    `problem` says why there are no strengths.
    """

    question: str
    methods: Sequence[str]
    strengths: Strengths | None
    votes: int
    ties: int
    people: int
    problem: str = ""


def scored(votes: Sequence[Mapping[str, Any]], *, most_failed: float = MOST_FAILED) -> list[Score]:
    """The scores of every question that was asked, without participants who failed attention checks.

    A tie counts as half a vote for each side.
    """
    trusted = attentive(votes, most_failed)
    counted = [vote for vote in votes if vote["token"] in trusted and not vote["checks"]]
    questions = dict.fromkeys(vote["question"] for vote in counted)
    return [_score(name, [vote for vote in counted if vote["question"] == name]) for name in questions]


def attentive(votes: Sequence[Mapping[str, Any]], most_failed: float = MOST_FAILED) -> set[str]:
    """The participants who failed at most this share of their attention checks."""
    people = {vote["token"] for vote in votes}
    checks = {token: [v for v in votes if v["token"] == token and v["checks"]] for token in people}
    return {
        token
        for token, mine in checks.items()
        if sum(vote["answer"] != vote["checks"] for vote in mine) <= most_failed * len(mine)
    }


def _score(question: str, votes: Sequence[Mapping[str, Any]]) -> Score:
    methods = sorted({name for vote in votes for name in (vote["left_method"], vote["right_method"])})
    at = {name: place for place, name in enumerate(methods)}
    wins = np.zeros((len(methods), len(methods)))
    for vote in votes:
        left, right = at[vote["left_method"]], at[vote["right_method"]]
        share = {"left": 1.0, "right": 0.0, "tie": 0.5}[vote["answer"]]
        wins[left, right] += share
        wins[right, left] += 1 - share
    ties, people = sum(v["answer"] == "tie" for v in votes), len({v["token"] for v in votes})
    try:
        found = bradley_terry(wins)
    except InputError as error:
        return Score(question, methods, None, len(votes), ties, people, str(error))
    order = np.argsort(-found.scores)
    ranked = Strengths(found.scores[order], found.low[order], found.high[order])
    return Score(question, [methods[place] for place in order], ranked, len(votes), ties, people)

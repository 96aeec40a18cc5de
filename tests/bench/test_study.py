"""The study: balanced trials, participants who come back, checks, scores, and the page's server."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest

from atelier.bench.scores import attentive, scored
from atelier.bench.serving import server
from atelier.bench.study import Study
from atelier.core.errors import InputError, OutputError, UsageError
from atelier.metrics.preference import win_probability

from .conftest import PROTOCOL, Bench

METHODS = """methods = [
    { method = "filters", name = "oil" },
    { method = "filters", name = "pencil", knobs = { look = "pencil" } },
    { method = "identity", name = "plain" },
]"""
#: The strengths of the methods, by which simulated participants vote.
TRUTH = {"oil": 1.0, "pencil": -1.0, "plain": 0.0}


@pytest.fixture
def grid(bench: Bench) -> Bench:
    start, end = PROTOCOL.split("methods = ")
    bench.write(f"{start}{METHODS}\n{end.partition(']')[2].partition('metrics')[0]}metrics = []\n")
    bench.run()
    return bench


def answer_all(study: Study, seed: int, *, careless: bool = False) -> str:
    """A participant who votes by `TRUTH`, or who always presses left."""
    random, token = np.random.default_rng(seed), study.enter()
    while (trial := study.next(token)) is not None:
        if careless or trial.checks:
            choice: Any = "left" if careless else trial.checks
        elif random.random() < 0.1:
            choice = "tie"
        else:
            chance = win_probability([TRUTH[trial.left], TRUTH[trial.right]])[0, 1]
            choice = "left" if random.random() < chance else "right"
        assert study.vote(token, trial.id, choice, 1.5)
    return token


def test_trials_are_balanced_and_scores_find_the_strengths(grid: Bench) -> None:
    study = Study(grid.root / "out", questions=("overall", "style"), trials=40)
    assert sorted(study.methods) == sorted(TRUTH)
    people = [answer_all(study, seed) for seed in range(6)]
    careless = [answer_all(study, seed, careless=True) for seed in range(2)]
    votes = study.votes()
    real = [vote for vote in votes if not vote["checks"]]
    for question in ("overall", "style"):
        mine = [vote for vote in real if vote["question"] == question]
        asked = Counter(tuple(sorted((v["left_method"], v["right_method"]))) for v in mine)
        assert max(asked.values()) - min(asked.values()) <= 1
    places = Counter((v["content"], v["style"]) for v in real)
    assert len(places) == 6
    assert max(places.values()) - min(places.values()) <= 4
    for pair in {tuple(sorted((v["left_method"], v["right_method"]))) for v in real}:
        lefts = Counter(v["left_method"] for v in real if {v["left_method"], v["right_method"]} == set(pair))
        assert abs(lefts[pair[0]] - lefts[pair[1]]) <= 1
    assert sum(vote["checks"] != "" for vote in votes) == 8 * 4
    assert set(people) <= attentive(votes)
    assert set(careless) - attentive(votes)
    (score, _) = scored([vote for vote in votes if vote["token"] in people])
    assert score.methods == ["oil", "plain", "pencil"]
    assert score.strengths is not None
    for name, low, high in zip(score.methods, score.strengths.low, score.strengths.high, strict=True):
        assert low - 0.5 < TRUTH[name] < high + 0.5
    assert score.ties > 0
    study.close()


def test_who_comes_back_goes_on_and_cannot_vote_twice(grid: Bench) -> None:
    study = Study(grid.root / "out", trials=3)
    token = study.enter()
    first = study.next(token)
    assert first is not None
    study.close()
    study = Study(grid.root / "out", trials=3)
    assert study.next(token) == first
    assert study.vote(token, first.id, "tie", 2.0)
    assert not study.vote(token, first.id, "left", 2.0)
    other = study.enter()
    second = study.next(token)
    assert second is not None
    assert second.id != first.id
    assert not study.vote(other, second.id, "left", 2.0), "another participant's trial"
    assert study.vote(token, second.id, "left", 1.0)
    (score,) = scored(study.votes())
    assert (score.votes, score.ties) == (2, 1)
    with pytest.raises(UsageError, match="left, right or tie"):
        study.vote(token, second.id, "up", 1.0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not known"):
        study.next("someone")
    with pytest.raises(UsageError, match="did you mean 'style'"):
        Study(grid.root / "out", questions=("stile",))
    study.close()


def test_a_grid_of_one_method_is_no_study(bench: Bench) -> None:
    bench.run()
    with pytest.raises(InputError, match="a study needs two"):
        Study(bench.root / "out")


def test_the_server_shows_a_trial_without_names_and_keeps_the_vote(grid: Bench) -> None:
    study = Study(grid.root / "out", trials=2)
    with server(study) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        line = http.client.HTTPConnection("127.0.0.1", made.server_port, timeout=10)
        with pytest.raises(OutputError, match="choose another --port"), server(study, port=made.server_port):
            pass

        def ask(address: str, body: object = None, kind: str = "application/json") -> tuple[int, bytes]:
            data = None if body is None else json.dumps(body).encode()
            headers = {} if body is None else {"Content-Type": kind}
            line.request("GET" if body is None else "POST", address, data, headers)
            got = line.getresponse()
            return got.status, got.read()

        assert b"Which picture?" in ask("/")[1]
        who = json.loads(ask("/enter", {})[1])["who"]
        text = ask(f"/trial?who={who}")[1]
        trial = json.loads(text)
        assert not any(name in text.decode() for name in TRUTH)
        for name in ("content", "style", "left", "right"):
            status, picture = ask(trial[name])
            assert (status, picture[:4]) == (200, b"\x89PNG")
        vote = {"who": who, "id": trial["id"], "answer": "right", "seconds": 3.25}
        assert ask("/vote", vote, "text/plain")[0] == 413
        line.close()
        assert json.loads(ask("/vote", vote)[1]) == {"kept": True}
        assert json.loads(ask("/vote", vote)[1]) == {"kept": False}
        assert ask("/vote", {"who": who})[0] == 400
        assert ask("/cell/../grid.sqlite")[0] == 404
        assert ask("/trial?who=nobody")[0] == 400
        assert [v["answer"] for v in study.votes()] == ["right"]
        line.close()
        made.shutdown()
        thread.join()
    study.close()

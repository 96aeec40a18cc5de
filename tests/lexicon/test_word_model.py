"""The fit of words: components, scores on held-out artists, directions, prototypes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from atelier.core.errors import TrainingError
from atelier.features.style_vector import Layout
from atelier.features.words import Word
from atelier.lexicon.labels import Labelled
from atelier.lexicon.traits import WORDS as TRAITS
from atelier.lexicon.word_model import (
    Data,
    Fitted,
    axes_of,
    carried,
    choose,
    fit,
    held_out_auc,
    part_weights,
    principal,
)

LAYOUT = Layout({"relu1_1": 2, "relu2_1": 2, "relu3_1": 2, "relu4_1": 2}, (64,))
WIDTH = sum(LAYOUT.lengths.values())
COUNT = 90


@pytest.fixture(scope="module")
def data() -> Data:
    """Pictures of nine artists. Those of three carry "spotted", which moves the whole vector; "chance" is
    given to half of all pictures at random."""
    draw = np.random.default_rng(0)
    spotted, chance = np.arange(COUNT) % 3 == 0, draw.random(COUNT) < 0.5
    vectors = draw.normal(size=(COUNT, 4)) @ draw.normal(size=(4, WIDTH))
    vectors += 0.1 * draw.normal(size=(COUNT, WIDTH)) + np.outer(spotted, draw.normal(size=WIDTH))
    pictures = []
    for place in range(COUNT):
        words = {"spotted": "technique"} if spotted[place] else {}
        words |= {"chance": "subject"} if chance[place] else {}
        pictures.append(Labelled(f"{place}.jpg", f"artist {place % 9}", words))
    traits = draw.normal(size=(COUNT, len(TRAITS)))
    traits[:, 0] = vectors[:, 0]  # lightness shows in the statistics, the other traits do not
    return Data(vectors, traits, pictures)


@pytest.fixture(scope="module")
def fitted(data: Data) -> Fitted:
    options = {"components": 8, "prototypes": 12, "shrinkage": 1.0, "least": 5, "worst": 0.8, "seed": 0}
    return fit(data, LAYOUT, **options)  # type: ignore[arg-type]


def test_components_restore_what_they_span(data: Data) -> None:
    found = principal(data.vectors, LAYOUT, WIDTH)
    codes = found.codes(data.vectors)
    np.testing.assert_allclose(found.mean + codes @ found.basis, data.vectors, atol=1e-6)
    np.testing.assert_allclose(codes.std(axis=0), 1, rtol=1e-6)


def test_parts_of_the_vector_have_their_share(data: Data) -> None:
    weighted = data.vectors * part_weights(data.vectors, LAYOUT)
    parts, start = {}, 0
    for name, length in LAYOUT.lengths.items():
        parts[name] = weighted[:, start : start + length].var(axis=0).sum()
        start += length
    assert parts["relu3_1 64 mean"] == pytest.approx(1.0)
    assert parts["relu1_1 64 deviation"] == pytest.approx(0.7)
    assert parts["colours"] == pytest.approx(2.5)


def test_words_are_kept_by_their_held_out_score(fitted: Fitted) -> None:
    kept = {word.name: word for word in fitted.vocabulary}
    assert kept["spotted"].auc > 0.95
    assert kept["spotted"].pictures == COUNT // 3
    assert {"light", "dark"} <= kept.keys()
    assert (kept["light"].axis, kept["light"].sign, kept["dark"].sign) == (kept["dark"].axis, 1, -1)
    dropped = {word.name: word.auc for word in fitted.dropped}
    assert 0.2 < dropped["chance"] < 0.8
    assert "lines" in dropped


def test_rare_words_are_no_axes(data: Data) -> None:
    names = axes_of(data, COUNT // 3 + 1).names
    assert "spotted" not in names
    assert set(TRAITS) <= set(names)


def test_the_area_under_the_curve_is_that_of_held_out_groups() -> None:
    draw = np.random.default_rng(1)
    codes = draw.normal(size=(200, 5))
    truth = codes[:, 0] + 0.5 * draw.normal(size=200) > 0
    groups = [str(place % 20) for place in range(200)]
    assert held_out_auc(codes, truth, groups, 0) > 0.9
    assert 0.3 < held_out_auc(codes, draw.random(200) < 0.5, groups, 0) < 0.7
    # An artist's own mark, which no other artist has, is not seen where the artist is held out.
    marked = np.arange(200) % 20 == 0
    signed = codes + 4 * np.outer(marked, np.eye(5)[1])
    alone = [str(place) for place in range(200)]
    assert held_out_auc(signed, marked, alone, 0) > 0.9 > held_out_auc(signed, marked, groups, 0)


def test_a_direction_is_the_effect_of_its_word(data: Data, fitted: Fitted) -> None:
    axis = list(fitted.axes.names).index("spotted")
    codes = fitted.components.codes(data.vectors)
    truth = carried(fitted.axes, axis, 0)
    effect = fitted.directions[axis] / (fitted.covariance[axis, axis] + fitted.noise)
    moved = codes[~truth].mean(axis=0) + effect
    wanted = codes[truth].mean(axis=0)
    assert np.linalg.norm(moved - wanted) < 0.1 * np.linalg.norm(codes[~truth].mean(axis=0) - wanted)


def test_prototypes_hold_the_best_of_each_label_and_no_picture_twice(fitted: Fitted) -> None:
    assert len(set(fitted.prototypes)) == len(fitted.prototypes) == 12
    for place, word in enumerate(fitted.vocabulary):
        if not word.sign:
            assert int(fitted.fits[:, place].argmax()) in fitted.prototypes


def test_a_picture_without_the_label_fits_at_most_half(fitted: Fitted) -> None:
    place = [word.name for word in fitted.vocabulary].index("spotted")
    truth = carried(fitted.axes, fitted.vocabulary[place].axis, 0)
    assert fitted.fits[~truth, place].max() <= 0.5
    assert fitted.fits[:, place].max() == fitted.fits[truth, place].max()


def test_measured_texts_are_answered_by_usual_pictures() -> None:
    word = Word("dark", "light", 9, 0.9, "artist", 0, -1)
    fits = np.array([[1.0], [0.9], [0.2]])
    assert choose(fits, np.array([0.1, 1.0, 1.0]), [word], 1) == [1]
    assert choose(fits, np.array([0.1, 1.0, 1.0]), [replace(word, sign=0)], 1) == [0]


def test_drawn_examples_are_not_usual(data: Data) -> None:
    pictures = [replace(one, drawn="ink") if place == 0 else one for place, one in enumerate(data.pictures)]
    options = {"components": 8, "prototypes": 3, "shrinkage": 1.0, "least": 5, "worst": 0.8, "seed": 0}
    assert fit(replace(data, pictures=pictures), LAYOUT, **options).typical[0] == 0  # type: ignore[arg-type]


def test_no_word_at_all_is_one_sentence(data: Data) -> None:
    options = {"components": 8, "prototypes": 3, "shrinkage": 1.0, "least": 5, "worst": 1.1, "seed": 0}
    with pytest.raises(TrainingError, match="no word can be told from the 90 pictures"):
        fit(data, LAYOUT, **options)  # type: ignore[arg-type]

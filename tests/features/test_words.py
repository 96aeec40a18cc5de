"""The bundled model of words: small, valid, and its words mean what they say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from atelier.colour import rgb_to_lab
from atelier.core.errors import UsageError, WeightsError
from atelier.features.words import NAME, Prediction, Words, _between, load
from atelier.store import weights


@pytest.fixture(scope="module")
def words() -> Words:
    return load()


def lab(prediction: Prediction) -> list[float]:
    """The mean colour of a prediction in CIELAB."""
    means: list[float] = rgb_to_lab(prediction.swatch).mean((0, 2, 3)).tolist()
    return means


def contrast(prediction: Prediction) -> float:
    return float(rgb_to_lab(prediction.swatch)[:, 0].std())


def test_the_file_is_small_and_holds_no_full_precision() -> None:
    assert weights.locate(NAME).stat().st_size <= 2_000_000
    kinds = {value.dtype for value in weights.load(NAME).values()}
    assert kinds == {torch.float16, torch.int8, torch.uint8}


def test_the_facts_of_the_file() -> None:
    facts = weights.metadata(NAME)
    assert facts["encoder"] == weights.fingerprint("encoder.atelier")
    assert json.loads(facts["training"])["seed"] == 0
    assert min(json.loads(facts["dropped"]).values()) < 0.8
    assert "/" not in facts["training"]


def test_every_word_is_told_from_others_on_held_out_pictures(words: Words) -> None:
    assert len(words.known) > 60
    assert min(word.auc for word in words.known.values()) >= 0.8
    assert {word.split for word in words.known.values() if word.kind != "artist"} == {"artist"}


@pytest.mark.parametrize(
    "text",
    ["impressionism", "Vincent van Gogh", "ukiyo-e print", "cubism, warm", "dark", "watercolor, light"],
)
def test_a_prediction_is_a_style(words: Words, text: str) -> None:
    found = words.predict(text)
    assert found.swatch.shape == (1, 3, 64, 64)
    assert 0 <= found.swatch.min() <= found.swatch.max() <= 1
    for tap, channels in words.layout.channels.items():
        mean, covariance = found.gaussian(tap, 300)
        assert mean.shape == (1, channels)
        assert mean.min() >= 0
        assert torch.linalg.eigvalsh(covariance[0]).min() > -1e-4 * covariance.diagonal(dim1=1, dim2=2).max()
    assert len(found.details(512)) == 5


def test_words_say_what_they_mean(words: Words) -> None:
    predict = words.predict
    assert lab(predict("dark"))[0] < lab(predict("light"))[0] - 20
    assert lab(predict("warm"))[2] > lab(predict("cold"))[2] + 15
    assert lab(predict("impressionism, blue"))[2] < lab(predict("impressionism"))[2]
    assert lab(predict("cubism, red"))[1] > lab(predict("cubism"))[1]
    assert contrast(predict("high contrast")) > 1.5 * contrast(predict("low contrast"))


def test_marks_show_in_the_details(words: Words) -> None:
    finest = {
        text: words.predict(text).details(512)[1].trace().item() for text in ("etching", "smooth", "rough")
    }
    assert finest["smooth"] < finest["rough"]
    assert finest["smooth"] < finest["etching"]


def test_the_order_of_words_does_not_matter(words: Words) -> None:
    one, other = words.predict("cubism, warm, dark"), words.predict("dark warm cubism")
    torch.testing.assert_close(one.vector, other.vector)
    torch.testing.assert_close(one.swatch, other.swatch)


def test_a_prediction_is_the_same_again(words: Words) -> None:
    one, other = words.predict("monet"), Words(weights.load(NAME), weights.metadata(NAME)).predict("monet")
    assert torch.equal(one.swatch, other.swatch)
    assert torch.equal(one.gaussian("relu4_1", 512).covariance, other.gaussian("relu4_1", 512).covariance)


def test_statistics_between_the_measured_sizes_are_interpolated(words: Words) -> None:
    found = words.predict("pointillism")
    low, high = (found.gaussian("relu2_1", side) for side in (128, 256))
    half = found.gaussian("relu2_1", (128 * 256) ** 0.5)
    torch.testing.assert_close(half.mean, (low.mean + high.mean) / 2)
    torch.testing.assert_close(half.covariance, (low.covariance + high.covariance) / 2)
    assert torch.equal(found.gaussian("relu2_1", 4000).mean, found.gaussian("relu2_1", 512).mean)
    assert torch.equal(found.details(16)[0], found.details(128)[0])


def test_shares_of_sizes_sum_to_1() -> None:
    for side in (1, 128, 200, 256, 511, 512, 900):
        assert sum(share for _, share in _between((128, 256, 512), side)) == pytest.approx(1)


def test_a_layer_that_was_not_measured_is_one_sentence(words: Words) -> None:
    with pytest.raises(UsageError, match="no statistics at the layer 'relu1_2': did you mean 'relu1_1'"):
        words.predict("monet").gaussian("relu1_2", 512)


def test_unknown_words_are_one_sentence(words: Words) -> None:
    with pytest.raises(UsageError, match=r"the word 'impresionism' is not known .* 'impressionism'"):
        words.predict("impresionism")


def test_another_file_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(WeightsError, match="holds no words"):
        load(str(tiny_encoder))
    with pytest.raises(WeightsError, match="holds no words"):
        load("encoder.atelier")

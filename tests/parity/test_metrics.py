"""The published metrics on recorded pictures, features, encodings and votes, array for array.

What is not compared: `gram_styleid_unused`, a "Gram matrix" of one number that no published score uses.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.features.lpips_trunks import AlexTrunk, SqueezeTrunk, VGGTrunk
from atelier.features.vgg import from_official, recognise
from atelier.losses.directions import spherical
from atelier.maths import gram
from atelier.metrics import LPIPS, PSNR, SSIM, HistogramDistance
from atelier.metrics.clip import clip_score, direction, similarity
from atelier.metrics.content import cfsd
from atelier.metrics.frechet import artfid, frechet
from atelier.metrics.gram import gatys_error, gram_error
from atelier.metrics.histogram import histogram
from atelier.metrics.lpips import Trunk
from atelier.metrics.networks import Networks
from atelier.metrics.preference import bradley_terry, fitted, win_probability
from atelier.metrics.ssim import ssim_per_channel

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "metrics" / "layout.json").read_text())
CASE = np.load(HERE / "metrics" / "case.npz")


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Any, *, rel: float = 1e-6, absolute: float = 0.0) -> None:
    np.testing.assert_allclose(np.asarray(value), CASE[name], rtol=rel, atol=absolute, err_msg=name)


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Tensor, Tensor]]:
    """Pictures (1, 3, 64, 72) in 0..1 in float64."""
    one, other = (array(f"image_{which}_u8").double() / 255 for which in "ab")
    return [(a[None], b[None]) for a, b in zip(one, other, strict=True)]


def test_pixels(pairs: list[tuple[Tensor, Tensor]]) -> None:
    check("mse_f64", [float((a - b).square().mean()) for a, b in pairs])
    check("psnr_f64", [PSNR()(a, b, "") for a, b in pairs])
    check("ssim_per_channel_f64", [ssim_per_channel(a[0].numpy(), b[0].numpy()) for a, b in pairs])
    check("ssim_f64", [SSIM()(a, b, "") for a, b in pairs])
    check("ssim_luma_f64", [SSIM(luma=True)(a, b, "") for a, b in pairs])


def test_frechet_distances() -> None:
    for name, one, other in (("full", 1, 2), ("deficient", 3, 4), ("mixed", 1, 4)):
        check(f"frechet_{name}_f64", frechet(array(f"features_{one}"), array(f"features_{other}")))
    check("frechet_same_f64", frechet(array("features_1"), array("features_1")), absolute=1e-6)
    terms = zip(CASE["artfid_lpips_f64"], CASE["artfid_fid_f64"], strict=True)
    check("artfid_f64", [artfid(lpips, fid) for lpips, fid in terms])


def test_structure_and_gram_matrices() -> None:
    check("cfsd_f64", cfsd(array("cfsd_features_stylized"), array("cfsd_features_content")))
    layers = [(array(f"gram_a_{index}")[None], array(f"gram_b_{index}")[None]) for index in range(3)]
    for index, (one, _) in enumerate(layers):
        check(f"gram_matrix_a_{index}", gram(one)[0] / one.shape[1])
    errors = [gram_error(*pair) for pair in layers]
    check("gram_mse_per_layer_f64", errors)
    check("gram_mse_f64", sum(errors) / 3)
    check("gram_gatys_per_layer_f64", [gatys_error(*pair) for pair in layers])


def test_encodings() -> None:
    image, source, text, text_source = (
        array(f"clip_{name}").double() for name in ("image", "image_src", "text", "text_src")
    )
    cosine = similarity(image, text)
    check("clip_image_image_f64", similarity(image, source))
    check("clip_image_text_f64", cosine)
    check("clipscore_2p5_f64", clip_score(cosine))
    check("clipscore_100_f64", clip_score(cosine, 100))
    found = direction(image, source, text, text_source)
    check("clip_directional_f64", found)
    check("clip_directional_loss_f64", 1 - found)
    check("clip_spherical_f64", spherical(image, text))


def test_preferences() -> None:
    scores = fitted(CASE["bt_wins"].astype(float))
    check("bt_score_zero_mean_f64", scores)
    check("bt_score_first_zero_f64", scores - scores[0], absolute=1e-12)
    check("bt_p_f64", np.exp(scores) / np.exp(scores).sum())
    check("bt_win_probability_f64", win_probability(scores))
    assert np.array_equal(bradley_terry(CASE["bt_wins"], bootstrap=0).scores, scores)


def test_colour_histograms(pairs: list[tuple[Tensor, Tensor]]) -> None:
    check("histogram_a0", histogram(pairs[0][0].float()), rel=1e-5, absolute=1e-9)
    distance = HistogramDistance()
    check("histogram_loss", [distance(a.float(), b.float(), b.float()) for a, b in pairs], rel=1e-5)
    big = histogram(array("histogram_big_u8")[None] / 255).double()
    facts = [big.sum(), big.square().sum(), big.max(), big.argmax()]
    check("histogram_big_stats_f64", [float(fact) for fact in facts], rel=1e-5)


def filled(kind: str) -> dict[str, Tensor]:
    state = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], kind)
    return {name: torch.from_numpy(value) for name, value in state.items()}


@pytest.fixture(scope="module")
def trunks() -> dict[str, Trunk]:
    vgg = filled("vgg")
    return {
        "alex": AlexTrunk(filled("alex")),
        "squeeze": SqueezeTrunk(filled("squeeze")),
        "vgg": VGGTrunk(from_official(recognise(vgg), vgg, padding="zeros")),
    }


@pytest.mark.parametrize("kind", ["alex", "vgg", "squeeze"])
def test_lpips(trunks: dict[str, Trunk], pairs: list[tuple[Tensor, Tensor]], kind: str) -> None:
    if importlib.util.find_spec("lpips") is None:
        pytest.skip("the package lpips, which holds the heads, is not installed")
    metric = LPIPS(trunks[kind], Networks().heads(kind))
    one, other = (torch.cat(pictures).float() for pictures in zip(*pairs, strict=True))
    layers = metric.layers(one, other)
    check(f"lpips_{kind}_per_layer", layers, rel=1e-5, absolute=1e-7)
    check(f"lpips_{kind}", layers.sum(1), rel=1e-5, absolute=1e-7)
    assert metric(one[:1], other[:1], "") == pytest.approx(float(layers[0].sum()), rel=1e-5)

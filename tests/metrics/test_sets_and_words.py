"""Metrics of sets, words, classifiers, videos and votes: closed forms, known answers, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from atelier.core.errors import InputError, UsageError, WeightsError
from atelier.features.inception_v3 import shapes
from atelier.features.lpips_trunks import AlexTrunk, alex_shapes
from atelier.images.resize import resize
from atelier.metrics import (
    LPIPS,
    METRICS,
    ArtFrechetDistance,
    Blotch,
    DirectionLikeness,
    GramDistance,
    Networks,
    RelativeStyle,
    WordLikeness,
    bradley_terry,
    flicker,
    measure,
    warping_error,
)
from atelier.metrics.catalogue import missing
from atelier.metrics.classifier import ClassifierContent, ClassifierRecall
from atelier.metrics.frechet import FrechetDistance, SmallSetWarning, frechet, infinite, kernel
from atelier.metrics.preference import win_probability
from atelier.metrics.ssim import MultiscaleSSIM, _terms
from atelier.metrics.video import moved, seen_before


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def waves(seed: int, height: int = 192, width: int = 208) -> Tensor:
    """Smooth grey waves, (1, 3, H, W) in 0..1."""
    y, x = np.mgrid[:height, :width] / 64
    random = np.random.default_rng(seed)
    slopes, starts = random.uniform(1, 12, (3, 4, 2)), random.uniform(0, 6, (3, 4))
    terms = (np.sin(slopes[0, k, 0] * x + slopes[0, k, 1] * y + starts[0, k]) for k in range(4))
    return torch.tensor(0.5 + sum(terms) / 8)[None, None].expand(-1, 3, -1, -1)


# pixels


def test_ms_ssim_has_the_terms_of_another_library() -> None:
    """Contrast terms recorded with torchmetrics 1.9.0; SSIM itself is compared in the parity case."""
    content = waves(0)
    result = torch.lerp(content, waves(1), 0.3)
    recorded = [0.8914223839, 0.8483988335, 0.8426801363, 0.8612143995]
    one, other, product = result, content, 1.0
    for value, weight in zip(recorded, (0.0448, 0.2856, 0.3001, 0.2363), strict=True):
        assert float(_terms(one, other)[1][0]) == pytest.approx(value, abs=1e-9)
        product *= value**weight
        one, other = (torch.nn.functional.avg_pool2d(p, 2) for p in (one, other))
    product *= float(_terms(one, other)[0][0]) ** 0.1333
    assert MultiscaleSSIM()(result, content, content) == pytest.approx(product, rel=1e-9)
    with pytest.raises(InputError, match="needs 176 px a side"):
        MultiscaleSSIM()(result[..., :170, :], content[..., :170, :], content)


def test_blotches_are_stains_and_not_a_new_colour() -> None:
    ramp = torch.linspace(0.3, 0.5, 200).expand(1, 3, 160, -1)
    assert Blotch()(ramp, ramp, ramp) < 0.7
    recoloured = torch.stack([ramp[0, 0] ** 2, 1 - ramp[0, 0], 0.3 * ramp[0, 0]])[None]
    assert Blotch()(recoloured, ramp, ramp) < 0.7
    y, x = torch.meshgrid(torch.arange(160), torch.arange(200), indexing="ij")
    stains = 0.15 * torch.sin(x / 12) * torch.sin(y / 12)
    assert Blotch()((ramp + stains).clamp(0, 1), ramp, ramp) > 4
    assert math.isnan(Blotch()(ramp, noise(0, 1, 3, 160, 200), ramp))


def test_relative_style_is_1_for_the_photo_and_0_for_the_painting() -> None:
    def pixels(image: Tensor, taps: Sequence[str]) -> dict[str, Tensor]:
        return dict.fromkeys(taps, image)

    metric = RelativeStyle(GramDistance(pixels, ["a"]))
    photo, painting = noise(0, 1, 3, 40, 60), 0.3 * noise(1, 1, 3, 50, 50)
    assert metric(photo, photo, painting) == pytest.approx(1)
    assert metric(painting, photo, painting) == pytest.approx(0, abs=1e-6)


# sets


def test_frechet_distances_of_normal_distributions_have_a_closed_form() -> None:
    """In one dimension it is (m - n)^2 + (s - t)^2; a shift along an axis adds its square."""
    one = torch.tensor([[-1.0], [1.0]]) * math.sqrt(0.5)
    other = 3 * one + 2
    assert frechet(one, other) == pytest.approx(2**2 + 2**2)
    many = noise(2, 50, 6)
    shift = torch.tensor([0.0, 3, 0, 4, 0, 0])
    assert frechet(many, many + shift) == pytest.approx(25)


def test_kernel_distance_has_no_bias_and_the_number_of_another_library() -> None:
    """Recorded with torchmetrics 1.9.0."""
    one = np.random.default_rng(0).standard_normal((40, 8))
    other = np.random.default_rng(1).standard_normal((40, 8)) + 0.5
    assert kernel(torch.tensor(one), torch.tensor(other)) == pytest.approx(0.5968174253180529)
    halves = [kernel(noise(seed, 30, 4), noise(seed + 100, 30, 4)) for seed in range(20)]
    assert abs(sum(halves) / 20) < 0.05
    assert min(halves) < 0 < max(halves)


def test_small_sets_are_counted_and_warned_about() -> None:
    results, styles = [noise(seed, 1, 3, 40, 40) for seed in range(3)], [noise(9, 1, 3, 40, 40)]
    contents = results
    with pytest.raises(InputError, match="at least two results and two different styles"):
        measure("kernel", results, contents, styles * 3)
    styles = [*styles, noise(8, 1, 3, 40, 40), styles[0]]
    with pytest.warns(SmallSetWarning, match="of 3 results and 2 styles: below 2048"):
        found = measure("frechet", results, contents, styles)
    assert found.count == 3
    assert set(found.features) == {"encoder.atelier"}
    assert len(found.features["encoder.atelier"]) == 64
    with pytest.warns(SmallSetWarning):
        copies = FrechetDistance(lambda p: p.flatten(1)[:, :8])(styles[:2], contents[:2], styles[:2])
    assert copies == pytest.approx(0, abs=1e-9)


def test_inception_has_the_size_of_the_published_network() -> None:
    """21,785,568 parameters without the classifier, as torchvision counts them."""
    learnt = {name: shape for name, shape in shapes().items() if "running" not in name}
    assert sum(math.prod(shape) for shape in learnt.values()) == 21_785_568


@pytest.mark.filterwarnings("ignore::atelier.metrics.frechet.SmallSetWarning")
def test_artfid_counts_styles_as_given_and_says_its_size() -> None:
    """Two results of one style and one of another: the style's mean is nearer to the first."""
    seen: list[tuple[int, ...]] = []

    def mean(picture: Tensor) -> Tensor:
        seen.append(tuple(picture.shape[-2:]))
        return picture.mean((2, 3))

    photo = torch.zeros(1, 3, 20, 30)
    results = [photo + value for value in (0.2, 0.4, 0.6)]
    first, second = torch.zeros(1, 3, 10, 12), torch.ones(1, 3, 10, 12)
    styles = [first, first, second]
    whole = ArtFrechetDistance(LPIPS(lambda p: [p + 1]), FrechetDistance(mean, once=False))
    # Grey pictures have features of equal direction, so LPIPS is 0. The channels are equal: there are three
    # times (0.4 - 1/3)^2, and three times the distance of the deviations, by variances of 0.04 and 1/3.
    spread = 3 * (math.sqrt(0.04) - math.sqrt(1 / 3)) ** 2
    expected = 1 + 3 * (0.4 - 1 / 3) ** 2 + spread
    assert whole(results, [photo] * 3, styles) == pytest.approx(expected, rel=1e-5)
    assert set(seen) == {(20, 30), (10, 12)}
    seen.clear()
    ArtFrechetDistance(whole.lpips, whole.frechet, 16)(results, [photo] * 3, styles)
    assert set(seen) == {(16, 24), (16, 19)}
    assert "full size" in METRICS["artfid"].resize
    assert "512" in METRICS["artfid_512"].resize


# features that are not here


def test_missing_features_name_the_remedy(tmp_path: Path) -> None:
    photo = noise(0, 1, 3, 64, 64)
    with pytest.raises(WeightsError, match=r"atelier weights pull inception\.fid"):
        measure("fid", [photo], [photo], [photo])
    assert "weights pull inception.artfid" in missing(["artfid_512"], Networks())["artfid_512"]
    with pytest.raises(UsageError, match="did you mean 'ssim'"):
        measure("sim", [photo], [photo], [photo])
    with pytest.raises(WeightsError, match=r"there is no weights file none\.pth for vgg16\.imagenet"):
        measure("vgg_style", [photo], [photo], [photo], Networks({"vgg16.imagenet": "none.pth"}))
    with pytest.raises(UsageError, match=r"did you mean 'vgg16\.imagenet'"):
        Networks({"vgg16.imagnet": "vgg16.pth"})


def test_a_file_of_yours_stands_in_for_a_record(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {name: 0.01 * noise(1, *shape) for name, shape in alex_shapes().items()}
    save_file(state, tmp_path / "alex.safetensors")
    networks = Networks({"alexnet.imagenet": tmp_path / "alex.safetensors"})
    photo = noise(0, 1, 3, 64, 64)
    assert torch.equal(networks.trunk("alex")(photo)[-1], AlexTrunk(state)(photo)[-1])
    assert len(networks.hash("alexnet.imagenet")) == 64
    with pytest.raises(InputError, match="64x40 px is too small for LPIPS, which needs 63"):
        networks.trunk("alex")(photo[..., :40, :])


# words and classes


class Colours:
    """A tower whose encoding of a picture is its mean colour, and which knows two words."""

    side = 8

    def image(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))

    def text(self, prompts: Sequence[str]) -> Tensor:
        known = {"a photo": (1.0, 1.0, 1.0), "red": (1.0, 0.0, 0.0)}
        return torch.tensor([known[prompt] for prompt in prompts])


def test_words() -> None:
    white, red = torch.ones(1, 3, 12, 20), torch.zeros(1, 3, 12, 20)
    red[:, 0] = 1
    assert WordLikeness(Colours())(red, white, "red") == pytest.approx(1)
    assert WordLikeness(Colours())(white, white, "red") == pytest.approx(1 / math.sqrt(3))
    assert DirectionLikeness(Colours())(red, white, "red") == pytest.approx(1)
    assert DirectionLikeness(Colours())(white, red, "red") == pytest.approx(-1)
    with pytest.raises(InputError, match="a style in words, and the style is a picture"):
        WordLikeness(Colours())(red, white, red)
    with pytest.raises(InputError, match="with a style picture, and the style is in words"):
        measure("gram", [red], [white], ["red"])


def test_a_classifier_that_sees_brightness() -> None:
    def classifier(picture: Tensor) -> tuple[Tensor, Tensor]:
        scores = -(torch.linspace(0, 1, 21) - picture.mean()).abs()
        return picture.mean((2, 3)), scores[None]

    content, near, far = (torch.full((1, 3, 4, 4), value) for value in (0.5, 0.6, 0.9))
    assert ClassifierRecall(classifier)(near, content, content) == 1
    assert ClassifierRecall(classifier)(far, content, content) == 0
    assert ClassifierContent(classifier)(far, content, content) == pytest.approx(1)


# videos


def test_a_video_that_moves_with_its_flow_is_steady() -> None:
    still = resize(noise(0, 1, 3, 6, 8), (48, 64))
    frames = [still[..., 8 + 2 * t : 40 + 2 * t, 8:56] for t in range(3)]
    flow = torch.zeros(1, 2, 32, 48)
    flow[:, 1] = 2  # this frame's pixel was two rows further down before
    seen = torch.ones(1, 1, 32, 48)
    seen[..., -2:, :] = 0
    flows, visible = [flow] * 2, [seen] * 2
    assert torch.allclose(moved(frames[0], flow)[..., :-2, :], frames[1][..., :-2, :], atol=1e-5)
    assert warping_error(frames, flows, visible) == pytest.approx(0, abs=1e-5)
    flickering = [frame * (1 - 0.2 * (t % 2)) for t, frame in enumerate(frames)]
    assert flicker(flickering, frames, flows, visible) > 0.05
    agreed = seen_before(flow, -flow)
    assert agreed[..., :-2, :].all()
    with pytest.raises(InputError, match="3 frames need 2 flows"):
        warping_error(frames, flows[:1], visible)


# votes


def test_bradley_terry_finds_known_strengths_within_its_bounds() -> None:
    """Of 40 simulated studies, 95% should hold a strength within its bounds: at least 88% of all do."""
    truth, held = np.array([0.8, 0.3, -0.1, -1.0]), []
    for seed in range(40):
        random = np.random.default_rng(seed)
        upper = np.triu(random.binomial(60, win_probability(truth)), 1)
        wins = upper + np.tril(60 - upper.T, -1)
        found = bradley_terry(wins, bootstrap=100, seed=seed)
        held.append((found.low <= truth) & (truth <= found.high))
    assert 0.88 <= np.mean(held) <= 0.99


def test_votes_without_an_answer_are_refused() -> None:
    with pytest.raises(InputError, match="ask for more votes"):
        bradley_terry([[0, 5, 5], [0, 0, 3], [0, 2, 0]])
    with pytest.raises(InputError, match="square"):
        bradley_terry([[0, 1, 2], [1, 0, 1]])
    assert bradley_terry([[0, 4.5], [4.5, 0]], bootstrap=20).scores == pytest.approx([0, 0])


def test_the_infinite_frechet_distance_does_not_depend_on_the_number() -> None:
    """Of samples of one and the same distribution it is near 0, where the plain one is far above."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randn((4000, 16), generator=generator)
    found = torch.randn((1200, 16), generator=generator)
    plain = frechet(found, wanted)
    assert abs(infinite(found, wanted, smallest=300)) < 0.4 * plain
    assert infinite(found, wanted) == plain  # too few for subsets

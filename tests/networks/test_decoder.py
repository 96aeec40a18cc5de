"""Decoders that mirror an encoder: inferred sizes, any picture size, and no borders in flat areas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from atelier.core.errors import UsageError, WeightsError
from atelier.features.vgg import ENCODER, TINY, VGG, VGG16, VGG19
from atelier.networks.decoder import (
    Decoder,
    DecoderPlan,
    Decoders,
    check_fit,
    from_state,
    levels_from_state,
    recognise,
)

SLIM = DecoderPlan.of(TINY, 4, skips=2, blocks=2)
PLANS = [
    SLIM,
    DecoderPlan.of(TINY, 4, skips=3),
    DecoderPlan.of(TINY, 5),
    DecoderPlan.of(TINY, 1),
    DecoderPlan.of(ENCODER, 2, skips=1, blocks=1),
    DecoderPlan.of(VGG16, 3),
]
EYES = VGG(TINY, padding="replicate", seed=1)


def mirror(plan: DecoderPlan, padding: str = "replicate", seed: int = 0) -> Decoder:
    return Decoder(plan, padding=padding).fill(seed).prepare("cpu", torch.float32)


def flat(plan: DecoderPlan, height: int = 3, width: int = 5) -> dict[str, Tensor]:
    """Features that are the same everywhere."""
    generator = torch.Generator().manual_seed(2)
    return {
        tap: torch.rand(1, width_, 1, 1, generator=generator).expand(1, width_, height << n, width << n)
        for n, (tap, width_) in enumerate(zip(plan.taps, plan.widths[::-1], strict=False))
    }


def test_official_names_match_the_published_positions() -> None:
    # As they stand in the files: naoto0804's decoder.pth and feature_invertor_conv5_1.t7.
    adain, wct = (DecoderPlan.of(VGG19, stage).official_names() for stage in (4, 5))
    assert [int(key.split(".")[0]) for key in adain][::2] == [1, 5, 8, 11, 14, 18, 21, 25, 28]
    assert [int(key.split(".")[0]) for key in wct][::2] == [1, 5, 8, 11, 14, 18, 21, 24, 27, 31, 34, 38, 41]
    assert adain["14.bias"] == "conv3_1.bias"


def test_decoder_for_the_bundled_encoder_is_small() -> None:
    network = Decoder(DecoderPlan.of(ENCODER, 4, skips=2, blocks=2))
    sizes = {name: tuple(part.shape[:2]) for name, part in network.state_dict().items() if part.ndim == 4}
    assert sizes["conv4_1.weight"] == (128, 256)
    assert sizes["conv1_1.weight"] == (3, 32)
    assert sizes["skip3.weight"] == (128, 128)
    assert sizes["skip2.weight"] == (64, 64)
    assert sizes["block2.second.weight"] == (128, 128)
    # Under 3 MB in half precision.
    assert sum(part.numel() for part in network.state_dict().values()) < 1_500_000


@pytest.mark.parametrize("plan", PLANS)
def test_sizes_are_inferred_from_the_tensors(plan: DecoderPlan) -> None:
    state = mirror(plan).state_dict()
    assert recognise(state) == plan
    again = from_state({name: part.half() for name, part in state.items()})
    assert again.plan == plan
    assert again.state_dict().keys() == state.keys()


def test_loading_keeps_the_global_random_state_and_freezes_weights() -> None:
    state, before = mirror(SLIM).state_dict(), torch.get_rng_state()
    loaded = from_state(state).prepare("cpu", torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part.requires_grad for part in loaded.parameters())
    torch.testing.assert_close(loaded(flat(SLIM)), mirror(SLIM)(flat(SLIM)))


def test_only_published_sizes_use_nearest_upsampling() -> None:
    assert DecoderPlan.of(VGG19, 4).enlarging == "nearest"
    assert DecoderPlan.of(ENCODER, 4).enlarging == "bilinear"


@settings(max_examples=20, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), plan=st.sampled_from(PLANS[:4]))
def test_output_covers_the_input_for_any_size(height: int, width: int, plan: DecoderPlan) -> None:
    found = mirror(plan)(EYES(torch.rand(1, 3, height, width), plan.taps))
    above, left = (a - b for a, b in zip(found.shape[-2:], (height, width), strict=True))
    assert found.shape[:2] == (1, 3)
    assert 0 <= above < 1 << (plan.stage - 1)
    assert 0 <= left < 1 << (plan.stage - 1)


@pytest.mark.parametrize("plan", [SLIM, DecoderPlan.of(TINY, 3), DecoderPlan.of(VGG19, 2)])
def test_flat_features_make_a_flat_picture_without_a_frame(plan: DecoderPlan) -> None:
    pictures = {padding: mirror(plan, padding)(flat(plan)) for padding in ("replicate", "reflect", "zeros")}
    for padding in ("replicate", "reflect"):
        middle = pictures[padding][..., 4:5, 4:5].expand_as(pictures[padding])
        torch.testing.assert_close(pictures[padding], middle, atol=1e-5, rtol=1e-5)
    assert (pictures["zeros"] - pictures["zeros"][..., 4:5, 4:5]).abs().max() > 1e-3


@pytest.mark.parametrize("padding", ["replicate", "reflect", "zeros"])
@pytest.mark.parametrize("plan", [DecoderPlan.of(VGG19, 3), DecoderPlan.of(VGG19, 3, skips=1, blocks=1)])
def test_fused_upsampling_matches_separate_steps(plan: DecoderPlan, padding: str) -> None:
    # A frozen mirror does so; one in training does one after the other.
    features = {
        tap: torch.rand(2, width, 3 << n, 5 << n)
        for n, (tap, width) in enumerate(zip(plan.taps, plan.widths[::-1], strict=False))
    }
    network = Decoder(plan, padding=padding).fill(1)
    plain = network(features).detach()
    assert network.prepare("cpu", torch.float32)._growing
    torch.testing.assert_close(network(features), plain, atol=1e-4, rtol=1e-4)


def test_skips_carry_detail_and_blocks_change_the_result() -> None:
    features, network = flat(SLIM), mirror(SLIM)
    plain = network(features)
    for tap in SLIM.taps[1:]:
        changed = {**features, tap: features[tap] + torch.eye(20)[:1, :1].expand_as(features[tap])}
        assert (network(changed) - plain).abs().max() > 1e-4, tap
    network.get_parameter("block2.second.bias").data.add_(0.5)
    assert (network(features) - plain).abs().max() > 1e-4


@pytest.mark.parametrize("value", [0.0, 0.1, 0.4, 0.501, 0.7, 0.9, 1.0])
def test_half_precision_keeps_a_quarter_of_a_shade(value: float) -> None:
    network = mirror(DecoderPlan.of(TINY, 1))
    for name, part in network.named_parameters():
        part.data.fill_(value if name.endswith("bias") else 0.0)
    found = network.prepare("cpu", torch.bfloat16)({"relu1_1": torch.rand(1, 8, 4, 4).bfloat16()})
    assert found.dtype == torch.float32
    assert (found - value).abs().max() <= 0.25 / 255


def test_half_precision_is_close_to_float32() -> None:
    features = EYES(torch.rand(1, 3, 24, 40), SLIM.taps)
    plain = mirror(SLIM)(features)
    found = mirror(SLIM).prepare("cpu", torch.bfloat16)(
        {tap: one.bfloat16() for tap, one in features.items()}
    )
    assert (found - plain).abs().mean() < 0.03 * plain.std()


def test_levels_are_loaded_together() -> None:
    mirrors = Decoders([DecoderPlan.of(TINY, level) for level in (5, 2, 1)])
    loaded = levels_from_state(mirrors.state_dict())
    assert loaded.levels == (5, 2, 1)
    seen = EYES(torch.rand(1, 3, 16, 24), [f"relu{level}_1" for level in loaded.levels])
    for level, picture in loaded(seen).items():
        torch.testing.assert_close(picture, mirrors.level(level)(seen))


def test_the_gradient_reaches_every_tensor() -> None:
    network = Decoder(SLIM)
    network({tap: one.clone() for tap, one in flat(SLIM).items()}).square().mean().backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in network.parameters())


# what cannot be


def renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {name.replace(old, new): part for name, part in state.items()}


def test_encoder_weights_are_an_error() -> None:
    with pytest.raises(WeightsError, match="do not fit the decoder"):
        from_state(EYES.state_dict())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("conv4_1", "conv6_1", "decoder that mirrors an encoder"),
        ("conv", "layer", "decoder that mirrors an encoder"),
        ("skip3", "skip1", "skip3.weight"),
        ("block1.first", "block1.third", "block"),
    ],
)
def test_unexpected_tensor_names_are_errors(old: str, new: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        from_state(renamed(mirror(SLIM).state_dict(), old, new))


def test_an_empty_state_is_an_error() -> None:
    with pytest.raises(WeightsError, match="0 tensors"):
        from_state({})
    with pytest.raises(WeightsError, match="several levels"):
        levels_from_state(mirror(SLIM).state_dict())


def test_a_level_with_a_wrong_number_is_an_error() -> None:
    state = renamed(Decoders([DecoderPlan.of(TINY, 2)]).state_dict(), "level2", "level3")
    with pytest.raises(WeightsError, match="level3 holds the decoder of relu2_1"):
        levels_from_state(state)


def test_a_mismatched_encoder_is_an_error() -> None:
    check_fit(SLIM, EYES)
    with pytest.raises(WeightsError, match=r"needs 256 channels at relu4_1, .* has 16"):
        check_fit(DecoderPlan.of(ENCODER, 4), EYES)
    with pytest.raises(WeightsError, match="has no such tap"):
        check_fit(DecoderPlan.of(TINY, 5), VGG(replace(TINY, widths=TINY.widths[:4], convs=TINY.convs[:4])))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": 6}, "no stage 6"),
        ({"skips": 4}, "cannot have 4 skip connections"),
        ({"blocks": 1}, "need a skip"),
    ],
)
def test_invalid_plans_are_errors(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DecoderPlan.of(TINY, **{"stage": 4, **arguments})


def test_an_unknown_padding_is_an_error() -> None:
    with pytest.raises(UsageError, match="did you mean 'reflect'"):
        Decoder(SLIM, padding="reflct")

"""Taps, options and invalid input of the encoders; reference activations are in tests/parity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from atelier.core.errors import InputError, UsageError, WeightsError
from atelier.features import vgg
from atelier.features.vgg import ENCODER, TINY, VGG, VGG16, VGG_NORMALISED, Plan, from_official, recognise


def picture(height: int = 24, width: int = 20, *, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def layer_by_layer(encoder: VGG, image: Tensor) -> dict[str, Tensor]:
    """Every tap with torch's own modules, one after the other, nothing in place."""
    found: dict[str, Tensor] = {}
    features = (image - encoder.mean) / encoder.std
    for tap in encoder.taps:
        if tap.startswith("conv"):
            weight, bias = encoder.get_parameter(f"{tap}.weight"), encoder.get_parameter(f"{tap}.bias")
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, padding_mode=encoder.padding)
            layer.load_state_dict({"weight": weight, "bias": bias})
            features = layer(features)
        elif tap.startswith("relu"):
            features = F.relu(features)
        elif encoder.pooling == "max":
            features = nn.MaxPool2d(2, ceil_mode=True)(features)
        else:
            features = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)(features)
        found[tap] = features
    return found


@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate"])
@pytest.mark.parametrize("pooling", ["max", "average"])
def test_every_tap_at_once_equals_the_layers_one_by_one(padding: vgg.Padding, pooling: vgg.Pooling) -> None:
    encoder = VGG(TINY, padding=padding, pooling=pooling)
    with torch.inference_mode():
        taken = encoder(picture(37, 22), encoder.taps)
        expected = layer_by_layer(encoder, picture(37, 22))
    assert list(taken) == list(encoder.taps)
    for tap, features in expected.items():
        torch.testing.assert_close(taken[tap], features, atol=1e-5, rtol=1e-5)


def test_a_tap_does_not_depend_on_the_other_taps() -> None:
    encoder = VGG(TINY)
    together = encoder(picture(), ["conv2_1", "relu2_1", "pool2", "conv3_1"])
    assert together["conv2_1"].min() < 0
    for tap, features in together.items():
        assert torch.equal(encoder(picture(), [tap])[tap], features)


def test_layers_after_the_deepest_tap_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, calls = VGG(TINY), list[str]()
    convolve = VGG._convolve

    def counted(self: VGG, features: Tensor, name: str) -> Tensor:
        calls.append(name)
        return convolve(self, features, name)

    monkeypatch.setattr(VGG, "_convolve", counted)
    encoder(picture(), ["relu2_1", "relu1_2"])
    assert calls == ["conv1_1", "conv1_2", "conv2_1"]


def test_gradient_reaches_the_picture_but_no_weights() -> None:
    encoder, image = VGG(TINY), picture().requires_grad_()
    taps = encoder(image, ["conv1_1", "relu1_1", "relu4_1"])
    sum(tap.square().mean() for tap in taps.values()).backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert all(not weight.requires_grad and weight.grad is None for weight in encoder.parameters())


def test_gradcheck_in_float64() -> None:
    encoder = VGG(Plan("two", (3, 4), (1, 1)), padding="replicate", pooling="average")
    encoder.prepare(dtype=torch.float64)
    image = picture(4, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: tuple(encoder(x, ["conv1_1", "relu1_1", "conv2_1"]).values()), (image,)
    )


def test_half_precision_is_close_and_normalises_before_rounding() -> None:
    exact, half = VGG(TINY), VGG(TINY).prepare("cpu", torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.mean.dtype == torch.float32
    a, b = exact(picture(), ["relu3_1"])["relu3_1"], half(picture(), ["relu3_1"])["relu3_1"]
    assert b.dtype == torch.bfloat16
    assert (a - b.float()).norm() / a.norm() < 0.02
    # bfloat16 cannot tell these two greys apart, the network must.
    light = torch.full((1, 3, 4, 4), 0.484375)
    assert torch.equal(light.bfloat16(), (light + 0.0008).bfloat16())
    assert not torch.equal(half.normalise(light), half.normalise(light + 0.0008))


def test_colour_layer_stays_in_float32() -> None:
    plan = Plan("small", (4, 4), (1, 1), padding="reflect", mean=None, std=None, colour=True)
    half = VGG(plan).prepare("cpu", torch.bfloat16)
    assert half.get_parameter("colour.weight").dtype == torch.float32
    taps = half(picture(), ["colour", "relu2_1"])
    assert {tap.dtype for tap in taps.values()} == {torch.bfloat16}
    assert half.taps[:3] == ("colour", "conv1_1", "relu1_1")
    assert half.channels("colour") == 3


def test_features_are_channels_last() -> None:
    taken = VGG(TINY, padding="reflect")(picture(), ["relu1_1", "relu3_1"])
    assert all(tap.is_contiguous(memory_format=torch.channels_last) for tap in taken.values())


def test_channels_and_scale_describe_the_taps() -> None:
    encoder = VGG(TINY)
    for tap, features in encoder(picture(64, 32), encoder.taps).items():
        assert features.shape == (
            1,
            encoder.channels(tap),
            64 // encoder.scale(tap),
            32 // encoder.scale(tap),
        )


@pytest.mark.parametrize("plan", [TINY, Plan("floor", (4, 4, 4), (1, 1, 1), ceil_pool=False)])
@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate"])
def test_smallest_side_is_exact(plan: Plan, padding: vgg.Padding) -> None:
    encoder = VGG(plan, padding=padding)
    for tap in encoder.taps:
        side = encoder.smallest_side([tap])
        assert min(encoder(picture(side, side + 3), [tap])[tap].shape[-2:]) >= 1
        if side > 1:
            with pytest.raises(InputError, match=rf"{tap} .* needs at least {side} px a side"):
                encoder(picture(side - 1, 40), [tap])


def test_one_pixel_is_enough_without_reflect_padding() -> None:
    for padding in ("zeros", "replicate"):
        assert VGG(TINY, padding=padding).smallest_side(["pool5"]) == 1
    assert VGG(TINY, padding="reflect").smallest_side(["relu3_1"]) == 5


def test_the_seed_determines_the_weights_and_keeps_the_global_state() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = VGG(TINY, seed=1), VGG(TINY, seed=1), VGG(TINY, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.conv3_2.weight, same.conv3_2.weight)
    assert not torch.equal(one.conv3_2.weight, other.conv3_2.weight)


def test_unknown_names_suggest_the_nearest() -> None:
    encoder = VGG(TINY)
    with pytest.raises(UsageError, match="tiny has no tap 'relu3_9': did you mean 'relu3_3'"):
        encoder(picture(), ["relu3_9"])
    with pytest.raises(UsageError, match="at least one tap"):
        encoder(picture(), [])
    with pytest.raises(UsageError, match="no padding 'reflection': did you mean 'reflect'"):
        VGG(TINY, padding="reflection")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no pooling 'min'"):
        VGG(TINY, pooling="min")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"got \(1, 1, 8, 8\)"):
        encoder(torch.zeros(1, 1, 8, 8), ["relu1_1"])


@pytest.mark.parametrize("plan", [TINY, VGG16, Plan("encoder", (4, 6), (1, 2))])
def test_own_names_identify_the_plan(plan: Plan) -> None:
    state = {name: torch.zeros(()).expand(shape) for name, shape in plan.shapes().items()}
    found = recognise(state)
    assert (found.widths, found.convs) == (plan.widths, plan.convs)
    assert found.ceil_pool == plan.ceil_pool
    assert found.mean == ENCODER.mean


def test_half_precision_weights_load_as_float32_outside_inference_mode() -> None:
    state = {name: tensor.half() for name, tensor in VGG(TINY, seed=5).state_dict().items()}
    with torch.inference_mode():
        encoder = from_official(recognise(state), state)
    assert encoder.dtype == torch.float32
    image = picture().requires_grad_()
    encoder(image, ["relu2_1"])["relu2_1"].sum().backward()
    assert image.grad is not None


def test_weights_of_other_networks_are_errors() -> None:
    with pytest.raises(
        WeightsError, match=r"2 tensors \(first: layer\.weight, layer\.bias\) are not those of a VGG-like"
    ):
        recognise({"layer.weight": torch.zeros(3, 3), "layer.bias": torch.zeros(3)})
    tiny = dict(VGG(TINY).state_dict())
    gap = {name: tensor for name, tensor in tiny.items() if not name.startswith("conv2_")}
    with pytest.raises(WeightsError, match=r"lack an entire stage .*conv2_1\.weight"):
        recognise(gap)
    tiny["conv2_2.bias"] = torch.zeros(9)
    with pytest.raises(WeightsError, match=r"conv2_2\.bias has shape \(9,\), expected \(8,\)"):
        from_official(recognise(tiny), tiny)
    batch_norm = dict(VGG(TINY).state_dict())
    batch_norm["bn1_1.weight"] = torch.zeros(8)
    with pytest.raises(
        WeightsError, match=r"0 tensors are missing \(none\) and 1 are unexpected \(bn1_1\.weight\)"
    ):
        from_official(recognise(batch_norm), batch_norm)


def test_colour_layer_identifies_the_normalised_plan() -> None:
    plan = Plan("small", (4, 6), (1, 2), padding="reflect", mean=None, std=None, colour=True)
    found = recognise(VGG(plan).state_dict())
    assert found == Plan(
        VGG_NORMALISED.name, plan.widths, plan.convs, padding="reflect", mean=None, std=None, colour=True
    )


def test_load_from_a_file(tmp_path: Path) -> None:
    encoder = VGG(TINY, seed=7)
    file = tmp_path / "mine.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}, file)
    loaded = vgg.load(file, padding="replicate", pooling="average")
    assert (loaded.padding, loaded.pooling) == ("replicate", "average")
    plain = vgg.load(str(file))
    assert torch.equal(plain(picture(), ["pool5"])["pool5"], encoder(picture(), ["pool5"])["pool5"])


def test_loading_other_weights_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"decoder.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(WeightsError, match="not those of a VGG-like encoder"):
        vgg.load(file)
    with pytest.raises(WeightsError):
        vgg.load(tmp_path / "missing.safetensors")

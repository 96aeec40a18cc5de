"""StyleID: attention, start, steps and whole runs of both of the authors' programs give their numbers."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytestmark = pytest.mark.xdist_group("transformers")

from atelier.maths import ddim, schedules  # noqa: E402
from atelier.methods.diffusion import styleid  # noqa: E402
from atelier.methods.diffusion.styleid import Inverted, Styleid, Way  # noqa: E402
from atelier.metrics.content import cfsd  # noqa: E402
from atelier.metrics.frechet import artfid, frechet, infinite  # noqa: E402
from atelier.pipelines import self_attention  # noqa: E402
from atelier.pipelines import stable_diffusion_layout as layout  # noqa: E402
from atelier.pipelines.self_attention import Features, Injection, Opened, attend, injected  # noqa: E402
from atelier.pipelines.stable_diffusion import StableDiffusion  # noqa: E402

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("parity_fill", HERE / "fill.py")
fill = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fill)

LAYOUT: dict[str, Any] = json.loads((HERE / "styleid" / "layout.json").read_text())
CASE = np.load(HERE / "styleid" / "case.npz")
SCHEDULE = schedules.scaled_linear()


def array(name: str) -> Tensor:
    return torch.from_numpy(CASE[name])


def check(name: str, value: Any) -> None:
    fill.check(CASE, LAYOUT, name, value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value))


def filled(model: str) -> dict[str, Tensor]:
    found = fill.fill_state_dict(LAYOUT, LAYOUT["fill_seed"], model=model)
    assert fill.state_dict_sha256(found) == LAYOUT["models"][model]["fill_sha256"]
    return {name: torch.from_numpy(value) for name, value in found.items()}


def knobs(quality: str, **more: Any) -> Styleid.Knobs:
    return Styleid.Knobs(**{**Styleid.qualities[quality], **more})


# attention


@pytest.fixture(scope="module")
def attention() -> Any:
    """One attention of diffusers, with the weights of the case."""
    from diffusers.models.attention_processor import Attention

    state = filled("attention")
    made = Attention(query_dim=24, heads=3, dim_head=8)
    made.load_state_dict({name.split("attention.")[-1]: value for name, value in state.items()})
    return made.requires_grad_(False)


def opened(attention: Any, given: Injection | None, tokens: Tensor) -> tuple[Tensor, Features]:
    """The output of an attention that is opened as block 0, and its own features."""
    alone = SimpleNamespace(transformer_blocks=[SimpleNamespace(attn1=attention)])
    unet = SimpleNamespace(
        config=SimpleNamespace(layers_per_block=0), up_blocks=[SimpleNamespace(attentions=[alone])]
    )
    with Opened(unet, (0,)) as inside:
        inside.given = {} if given is None else {0: given}
        return attention(tokens), inside.read[0]


def given(share: float, temperature: float) -> Injection:
    query, key, value = (array(f"attention.{name}")[None] for name in ("q_content", "k_style", "v_style"))
    return Injection(query, key, value, share, temperature)


def test_attention(attention: Any) -> None:
    tokens = array("attention.x")
    plain, own = opened(attention, None, tokens)
    check("attention.plain", plain)
    for name, value in zip("qkv", own, strict=True):
        check(f"attention.{name}", value.flatten(0, 1))
    check("attention.injected", opened(attention, given(0.75, 1.5), tokens)[0])
    check("attention.injected_gamma0.3_T1", opened(attention, given(0.3, 1.0), tokens)[0])
    check("attention.kv_only", opened(attention, given(0.0, 1.5), tokens)[0])
    check("attention.diffusers_injected", opened(attention, given(0.75, 1.5), tokens[:1])[0])
    mixed = injected(own, given(0.75, 1.5))
    check("attention.q_mixed", mixed.query.flatten(0, 1))
    ones = torch.eye(mixed.key.shape[2]).expand(2, 3, -1, -1)
    check("attention.weights", attend(mixed._replace(value=ones), 1.5).flatten(0, 1))
    torch.testing.assert_close(attend(mixed, 1.5, sliced=True), attend(mixed, 1.5))


# the start and the steps


def test_the_start_has_the_statistics_of_the_style() -> None:
    for program in ("ldm", "diffusers"):
        for batch in ("", "_batch"):
            content, style = array(f"adain.content{batch}"), array(f"adain.style{batch}")
            check(f"adain.{program}{batch}", styleid.start_latent(content, style, program))


def test_the_steps_of_both_programs() -> None:
    check("schedule.alphas_cumprod", SCHEDULE.alphas_cumprod.astype(np.float32))
    inverted, sampled = styleid.inversion_steps("ldm", 50), styleid.sampling_steps("ldm", 50)
    check("schedule.ldm_timesteps", sorted(step.time for step in inverted))
    check("schedule.ldm_inversion_from", [step.at for step in inverted])
    check("schedule.ldm_inversion_to", [step.to for step in inverted])
    check("schedule.ldm_sampling", [step.time for step in sampled])
    times = [step.time for step in inverted]
    check("schedule.ldm_sampling_index", [times.index(step.time) for step in sampled])
    alphas = SCHEDULE.alphas_cumprod.astype(np.float32)
    check("schedule.ldm_sampling_alpha", alphas[[step.at for step in sampled]])
    check("schedule.ldm_sampling_alpha_prev", alphas[[step.to for step in sampled]])
    asked = {step.time for step in sampled}
    check("schedule.ldm_injected", np.array([time in asked for time in reversed(times)], np.uint8))
    check("schedule.ldm_injected_blocks", knobs("published").blocks)
    for count in (20, 50):
        inverted = styleid.inversion_steps("diffusers", count)
        check(f"schedule.diffusers{count}_inversion_to", [step.to for step in inverted])
        check(f"schedule.diffusers{count}_inversion_from", [step.at for step in inverted])
        sampled = styleid.sampling_steps("diffusers", count)
        check(f"schedule.diffusers{count}_sampling", [step.time for step in sampled])
    check("schedule.diffusers_injected", [step.time for step in styleid.sampling_steps("diffusers", 20)])
    check("schedule.diffusers_layers", knobs("diffusers").blocks)


def moved(start: Tensor, steps: list[ddim.Step], target: Any = "eps") -> list[ddim.Moved]:
    """The walk in which the network's k-th output is the k-th noise of the case."""
    outputs = iter(array("ddim.noise"))
    return list(ddim.walk(start, steps, lambda *_: next(outputs), schedule=SCHEDULE, target=target))


def test_the_way_to_noise_and_back() -> None:
    way = moved(array("ddim.x0"), styleid.inversion_steps("ldm", 50))
    check("ddim.ldm_inversion", torch.stack([one.after for one in way]))
    check("ddim.ldm_inversion_x0_first", way[0].clean)
    check("ddim.ldm_inversion_last", way[-1].after)
    way = moved(array("ddim.xT"), styleid.sampling_steps("ldm", 50))
    check("ddim.ldm_sampling", torch.stack([one.after for one in way]))
    check("ddim.ldm_sampling_last", way[-1].after)
    check("ddim.ldm_sampling_x0_last", way[-1].clean)


@pytest.mark.parametrize(("name", "count"), [("20", 20), ("50", 50), ("20_v", 20)])
def test_the_way_of_the_program_on_diffusers(name: str, count: int) -> None:
    target = "v" if name.endswith("v") else "eps"
    there = moved(array("ddim.x0"), styleid.inversion_steps("diffusers", count), target)
    back = moved(there[-1].after, styleid.sampling_steps("diffusers", count), target)
    check(f"ddim.diffusers{name}_inversion_last", there[-1].after)
    check(f"ddim.diffusers{name}_sampling_last", back[-1].after)
    check(f"ddim.diffusers{name}_sampling_x0_last", back[-1].clean)
    if count == 20:
        check(f"ddim.diffusers{name}_inversion", torch.stack([one.after for one in there]))
        check(f"ddim.diffusers{name}_sampling", torch.stack([one.after for one in back]))


# whole runs


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusion:
    """The small UNet of the case from the authors' names, without a VAE and words."""
    start = "model.diffusion_model."
    state = layout.unet_names(
        {name.removeprefix(start): value for name, value in filled("unet_small").items()}
    )
    other = filled("unet_small_diffusers")
    assert state.keys() == other.keys()
    assert all(torch.equal(state[name], other[name]) for name in state)
    unet = layout.empty("unet", layout.unet_settings(state))
    unet.load_state_dict(state, assign=True)
    nothing = SimpleNamespace(config=SimpleNamespace(block_out_channels=(1,) * 4))
    return StableDiffusion(unet.requires_grad_(False), nothing, None, None, torch.device("cpu"))


class Run:
    """The inversions of one program, with features for blocks 6 to 11, and samplings from them."""

    def __init__(self, pipeline: StableDiffusion, quality: str, opened: Opened) -> None:
        self.quality, self.outputs = quality, list[Tensor]()
        self.pipeline = replace(pipeline)
        predict = self.pipeline.predict

        def recorded(*args: Any) -> Tensor:
            self.outputs.append(predict(*args))
            return self.outputs[-1]

        self.pipeline.predict = recorded  # type: ignore[method-assign]
        self.opened, self.content, self.style = opened, Inverted(), Inverted()
        way = self.way()
        self.trajectories = {
            name: [one.after for one in way.invert(array(f"run.{name}_latent"), found, keep=kinds)]
            for name, found, kinds in (("content", self.content, "q"), ("style", self.style, "kv"))
        }
        self.start = styleid.start_latent(self.content.last, self.style.last, way.knobs.program)

    def way(self, **more: Any) -> Way:
        return Way(self.pipeline, self.opened, array("run.context"), knobs(self.quality, **more))

    def sampled(self, start: Tensor | None = None, **more: Any) -> list[ddim.Moved]:
        start = self.start if start is None else start
        return list(self.way(**more).sample(start, self.content, self.style))

    def features(self, name: str, time: int, block: int) -> None:
        seen, painted = self.content.features[time][block], self.style.features[time][block]
        for kind, value in (("q", seen.query), ("k", painted.key), ("v", painted.value)):
            check(f"{name}{block}_{kind}", value[0])


@pytest.fixture(scope="module")
def run(pipeline: StableDiffusion) -> Any:
    with torch.no_grad(), Opened(pipeline.unet, range(6, 12)) as inside:
        yield Run(pipeline, "published", inside)


@pytest.mark.slow
def test_a_run_of_the_program_on_ldm(run: Run) -> None:
    check("ldm.noise_first", run.outputs[0])
    for name in ("content", "style"):
        check(f"ldm.{name}_trajectory", torch.stack(run.trajectories[name]))
        check(f"ldm.{name}_inverted", run.trajectories[name][-1])
    check("ldm.start", run.start)
    for time, block in ((961, 6), (961, 11), (1, 6), (1, 11)):
        run.features(f"ldm.feature_t{time}_block", time, block)
    assert 981 not in run.content.features  # it is never used
    done = len(run.outputs)
    way = run.sampled()
    check("ldm.noise_first_injected", run.outputs[done])
    check("ldm.sampling_trajectory", torch.stack([one.after for one in way]))
    check("ldm.result", way[-1].after)
    check("ldm.x0_last", way[-1].clean)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("no_injection", {"blocks": ()}),
        ("gamma0.3", {"gamma": 0.3}),
        ("T1", {"temperature": 1.0}),
        ("blocks9-11", {"blocks": (9, 10, 11)}),
        ("no_adain", {}),
    ],
)
def test_variants_of_the_program_on_ldm(run: Run, name: str, more: dict[str, Any]) -> None:
    start = run.content.last if name == "no_adain" else None
    check(f"ldm.result_{name}", run.sampled(start, **more)[-1].after)


@pytest.mark.parametrize("target", ["eps", pytest.param("v", marks=pytest.mark.slow)])
def test_a_run_of_the_program_on_diffusers(pipeline: StableDiffusion, target: Any) -> None:
    name = "diffusers_v" if target == "v" else "diffusers"
    with torch.no_grad(), Opened(pipeline.unet, range(6, 12)) as inside:
        run = Run(replace(pipeline, target=target), "diffusers", inside)
        way = run.sampled()
    check(f"{name}.content_inverted", run.content.last)
    check(f"{name}.style_inverted", run.style.last)
    check(f"{name}.start", run.start)
    check(f"{name}.result", way[-1].clean)
    check(f"{name}.last_latent", way[-1].after)
    for time in (951, 1) if target == "eps" else ():
        run.features(f"diffusers.feature_t{time}_layer", time, 7)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "blocks"), [("no_injection", ()), ("layers6-11", range(6, 12))])
def test_variants_of_the_program_on_diffusers(pipeline: StableDiffusion, variant: str, blocks: Any) -> None:
    with torch.no_grad(), Opened(pipeline.unet, range(6, 12)) as inside:
        way = Run(pipeline, "diffusers", inside).sampled(blocks=tuple(blocks))
    check(f"diffusers_{variant}.result", way[-1].clean)
    check(f"diffusers_{variant}.last_latent", way[-1].after)


# the metrics


def test_the_numbers_that_the_paper_compares_by() -> None:
    found, wanted = array("metrics.features_stylised"), array("metrics.features_style")
    distance = frechet(found, wanted)
    check("metrics.fid_f64", distance)
    check("metrics.fid_infinity_f64", infinite(found, wanted))
    check("metrics.artfid_f64", artfid(float(array("metrics.lpips").double().mean()), distance))
    check("metrics.cfsd", cfsd(array("metrics.cfsd_stylised"), array("metrics.cfsd_content")))


def test_another_convention_is_far_outside(attention: Any) -> None:
    with pytest.raises(AssertionError, match=r"attention\.injected"):
        check("attention.injected", opened(attention, given(0.75, 1.0), array("attention.x"))[0])


def test_the_published_layout_of_the_unet_loads() -> None:
    """Every name of the published file has its place, and the sizes that follow are those of version 1.4."""
    official = LAYOUT["models"]["unet_small"]["official_layout"]
    start = "model.diffusion_model."
    with torch.device("meta"):
        state = layout.unet_names(
            {name.removeprefix(start): torch.empty(one["shape"]) for name, one in official.items()}
        )
    settings = layout.unet_settings(state)
    assert settings["block_out_channels"] == [320, 640, 1280, 1280]
    assert settings["cross_attention_dim"] == 768
    expected = {name: one.shape for name, one in layout.empty("unet", settings).state_dict().items()}
    assert {name: one.shape for name, one in state.items()} == expected


@pytest.mark.slow
def test_the_memory_of_features_is_what_they_take(run: Run) -> None:
    settings = dict(run.pipeline.unet.config)

    def kept(found: Inverted, kind: str) -> int:
        return sum(getattr(one, kind).nbytes for one in found.features[1].values())

    expected = self_attention.feature_bytes(settings, range(6, 12), (16, 16), 4)
    assert kept(run.content, "query") == kept(run.style, "key") == kept(run.style, "value") == expected
    assert kept(run.content, "key") == kept(run.style, "query") == 0

"""CLIP by transformers: every layout of files gives the same encodings, and pixels get gradients."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atelier.core.errors import ResourceError, UsageError, WeightsError
from atelier.features import clip, clip_layout, prompts
from atelier.features.pooled import PooledEncoder
from atelier.features.vgg import TINY, VGG
from atelier.store import weights
from atelier.store.records import record, records

pytest.importorskip("transformers")
pytestmark = pytest.mark.xdist_group("transformers")


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tiny_clip: Path) -> tuple[Path, Any]:
    """A tiny CLIP of transformers' own making, saved by it with its tokenizer, and the network itself."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 1}
    tokens = json.loads((tiny_clip / "vocab.json").read_text())
    ends = {"bos_token_id": tokens["<|startoftext|>"], "eos_token_id": tokens["<|endoftext|>"]}
    config = CLIPConfig(
        text_config=small | ends | {"vocab_size": len(tokens), "hidden_act": "gelu", "projection_dim": 24},
        vision_config=small | {"image_size": 32, "patch_size": 8, "hidden_act": "gelu", "projection_dim": 24},
        projection_dim=24,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    vocabulary = str(tiny_clip / "vocab.json"), str(tiny_clip / "merges.txt")
    CLIPTokenizer(vocab=vocabulary[0], merges=vocabulary[1]).save_pretrained(folder)
    return folder, model


def by_openai(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of transformers under the names of OpenAI's files."""
    names = {"self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
    names |= {"layer_norm1": "ln_1", "layer_norm2": "ln_2"}
    found = {
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "logit_scale": state["logit_scale"],
    }
    for kind in ("weight", "bias"):
        found |= {
            f"visual.ln_pre.{kind}": state[f"vision_model.pre_layrnorm.{kind}"],
            f"visual.ln_post.{kind}": state[f"vision_model.post_layernorm.{kind}"],
            f"ln_final.{kind}": state[f"text_model.final_layer_norm.{kind}"],
        }
        for theirs, ours in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
            start, end = f"{theirs}.encoder.layers.0", f"{ours}.resblocks.0"
            parts = [state[f"{start}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
            found[f"{end}.attn.in_proj_{kind}"] = torch.cat(parts)
            found |= {f"{end}.{new}.{kind}": state[f"{start}.{old}.{kind}"] for old, new in names.items()}
    return found


def with_vocabulary(tiny_clip: Path, folder: Path) -> Path:
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(tiny_clip / name, folder / name)
    return folder


def test_it_computes_what_transformers_does(saved: tuple[Path, Any], pictures: Tensor) -> None:
    from transformers import CLIPTokenizer

    folder, model = saved
    loaded = clip.load(folder)
    assert (loaded.side, loaded.width) == (32, 24)
    pixels = clip.normalised(pictures)
    torch.testing.assert_close(loaded.image(pictures), model.get_image_features(pixels).pooler_output)
    tokens = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    for sentence in ("red paint", "a photo of the sea, 1899"):
        ids = tokens(sentence, return_tensors="pt", padding="max_length", max_length=77)["input_ids"]
        wanted = model.get_text_features(ids).pooler_output
        torch.testing.assert_close(loaded.text([sentence, "a longer sentence, padded"])[:1], wanted)


def test_words_are_tokens_of_the_vocabulary(tiny_clip: Path) -> None:
    tokenizer = clip.load(tiny_clip).tokenizer
    assert tokenizer is not None
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("Red paint of")["input_ids"])
    assert tokens == ["<|startoftext|>", "red</w>", "paint</w>", "o", "f</w>", "<|endoftext|>"]


@pytest.mark.parametrize("kind", ["openai", "openclip", "torchscript"])
def test_other_layouts_give_the_same_encodings(
    tiny_clip: Path, tmp_path: Path, pictures: Tensor, kind: str
) -> None:
    expected = clip.load(tiny_clip)
    state = by_openai(load_file(tiny_clip / "model.safetensors"))
    facts = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    with_vocabulary(tiny_clip, tmp_path)
    if kind == "openai":
        torch.save(state | facts, path := tmp_path / "ViT-T-8.pt")
    elif kind == "openclip":
        save_file(state, path := tmp_path / "open_clip_model.safetensors")
        settings = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(settings))
    else:
        scripted(state | facts).save(path := tmp_path / "ViT-T-8.pt")
    loaded = clip.load(path)
    torch.testing.assert_close(loaded.image(pictures), expected.image(pictures))
    torch.testing.assert_close(loaded.text(["red art"]), expected.text(["red art"]))


def scripted(state: dict[str, Tensor]) -> Any:
    """The tensors as an archive of TorchScript, as OpenAI publishes them."""
    whole = nn.Module()
    for name, value in state.items():
        *path, last = name.split(".")
        place = whole
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        place.register_buffer(last, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; OpenAI's files stay
        return torch.jit.script(whole)


def test_the_activation_is_that_of_the_files(tiny_clip: Path, tmp_path: Path, pictures: Tensor) -> None:
    """OpenCLIP without settings means GELU, and OpenAI's own weights QuickGELU whatever the settings say."""
    state = by_openai(load_file(tiny_clip / "model.safetensors"))
    save_file(state, tmp_path / "open_clip_model.safetensors")
    quick, plain = (clip.load(one).image(pictures) for one in (tiny_clip, tmp_path))
    assert (quick - plain).abs().max() > 1e-3
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {"quick_gelu": true}}')
    torch.testing.assert_close(clip.load(tmp_path).image(pictures), quick)


def test_the_normalisation_is_that_of_the_settings(tiny_clip: Path, tmp_path: Path, pictures: Tensor) -> None:
    shutil.copytree(tiny_clip, tmp_path / "clip")
    seen = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "clip" / "preprocessor_config.json").write_text(json.dumps(seen))
    moved = (pictures - 0.5) / 0.25 * torch.tensor(clip_layout.STD)[:, None, None]
    same = clip.load(tiny_clip).image(moved + torch.tensor(clip_layout.MEAN)[:, None, None])
    torch.testing.assert_close(clip.load(tmp_path / "clip").image(pictures), same)


def test_pixels_get_the_slope_of_a_similarity(tiny_clip: Path, pictures: Tensor) -> None:
    tower = clip.load(tiny_clip)
    picture = pictures[:1].clone().requires_grad_()
    (slope,) = torch.autograd.grad(tower.image(picture).sum(), picture)
    step = torch.zeros_like(picture)
    step[0, 1, 4:12, 4:12] = 0.01
    with torch.no_grad():
        rise = (tower.image(picture + step) - tower.image(picture - step)).sum() / 2
    assert float((slope * step).sum()) == pytest.approx(float(rise), rel=1e-2)


def test_half_precision_is_for_pictures_alone(tiny_clip: Path, pictures: Tensor) -> None:
    exact, half = clip.load(tiny_clip), clip.load(tiny_clip).prepare("cpu", torch.bfloat16)
    found = half.image(pictures.requires_grad_())
    assert found.dtype == torch.float32
    assert 1e-5 < (found - exact.image(pictures)).abs().max() < 0.1 * found.abs().max()
    assert torch.equal(half.text(["red art"]), exact.text(["red art"]))


def test_a_template_has_a_place_for_words(tiny_clip: Path) -> None:
    assert len(prompts.TEMPLATES) == len(set(prompts.TEMPLATES)) == 79
    assert all(template.count("{}") == 1 for template in prompts.TEMPLATES)
    assert "a photo of many {}." not in prompts.TEMPLATES
    assert prompts.sentences("{x}", ["art of the {}."]) == ["art of the {x}."]
    tower = clip.load(tiny_clip)
    mean = torch.stack([tower.text([f"{a} of red."])[0] for a in ("art", "photo")]).mean(0)
    found = prompts.encoded(tower, "red", ["art of {}.", "photo of {}."])
    torch.testing.assert_close(found, mean / mean.norm())


# what goes wrong


def test_missing_weights_give_the_command() -> None:
    with pytest.raises(WeightsError, match=r"atelier weights pull clip_vit_b32\.openai"):
        clip.load("clip_vit_b32.openai")
    with pytest.raises(WeightsError, match=r"atelier weights pull clip_vit_l14\.laion2b"):
        clip.check("clip_vit_l14.laion2b")


def test_installed_weights_load_by_name(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pictures: Tensor
) -> None:
    """A folder added as the record is read by the record's rules: OpenAI's activation, and its vocabulary."""
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    folder = with_vocabulary(tiny_clip, tmp_path)
    save_file(by_openai(load_file(tiny_clip / "model.safetensors")), folder / "open_clip_model.safetensors")
    for name in ("config.json", "open_clip_config.json"):
        (folder / name).write_text("{}")
    with pytest.raises(WeightsError, match=r"is not the published merges\.txt"):
        weights.add("clip_vit_b32.openai", folder)
    weights.add("clip_vit_b32.openai", folder, force=True)
    loaded = clip.load("clip_vit_b32.openai")
    torch.testing.assert_close(loaded.image(pictures), clip.load(tiny_clip).image(pictures))
    # A file without a vocabulary beside it takes the installed one.
    (tmp_path / "alone").mkdir()
    lone = shutil.copy(tiny_clip / "model.safetensors", tmp_path / "alone" / "mine.safetensors")
    assert torch.equal(clip.load(lone).text(["red"]), clip.load(tiny_clip).text(["red"]))


def test_records_of_clip_are_complete() -> None:
    known = [one for one in records() if one.name.startswith("clip_")]
    assert len(known) == 5
    for one in known:
        names = {part.name for part in one.parts}
        assert {"config.json", "vocab.json", "merges.txt"} < names
        assert all(part.sources[0].startswith("https://huggingface.co/") for part in one.parts)
        assert one.revision in one.parts[0].sources[0]
    assert record("clip_vit_l14.openai").size == 1_710_540_580 + 4519 + 961_143 + 524_619


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("resnet", "sees with a ResNet, which is not supported"),
        ("other", "are not those of a CLIP"),
        ("part", r"1 of 46 tensors are missing \(text_model\.final_layer_norm\.bias\)"),
        ("damaged", r"config\.json is not JSON"),
        ("empty", "holds no model.safetensors"),
        ("pickle", r"name the file itself, .*pytorch_model\.bin"),
    ],
)
def test_what_is_no_clip_is_one_sentence(tiny_clip: Path, tmp_path: Path, name: str, sentence: str) -> None:
    state = load_file(tiny_clip / "model.safetensors")
    if name == "resnet":
        state = {"visual.layer1.0.conv1.weight": torch.ones(1)}
    elif name == "other":
        state = {"conv1_1.weight": torch.ones(1)}
    elif name == "part":
        del state["text_model.final_layer_norm.bias"]
    elif name == "damaged":
        (tmp_path / "config.json").write_text("{")
    if name == "pickle":
        (tmp_path / "pytorch_model.bin").write_bytes(b"")
    elif name != "empty":
        save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=sentence):
        clip.load(tmp_path)


def test_words_that_cannot_be_read_are_one_sentence(tiny_clip: Path, tmp_path: Path) -> None:
    save_file(load_file(tiny_clip / "model.safetensors"), tmp_path / "mine.safetensors")
    with pytest.raises(WeightsError, match=r"mine\.safetensors has no vocabulary: put vocab\.json"):
        clip.load(tmp_path / "mine.safetensors").text(["red"])
    with pytest.raises(UsageError, match="has 90 tokens, and CLIP reads 75: shorten it"):
        clip.load(tiny_clip).text(["x " * 90])


def test_without_transformers_the_extra_is_named(tiny_clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ResourceError, match=r"pip install 'atelier\[text\]'"):
        clip.load(tiny_clip)


# an encoder in CLIP's place


def test_pooled_features_are_a_tower() -> None:
    tower: clip.ImageTower = PooledEncoder(VGG(TINY, seed=3), ("relu2_1", "relu3_1"), side=16)
    pictures = torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = tower.image(pictures)
    assert found.shape == (2, 48)
    torch.testing.assert_close(found.square().sum(1), torch.full((2,), 2.0))
    (slope,) = torch.autograd.grad(found[:, 0].sum(), pictures)
    assert torch.isfinite(slope).all()
    assert slope.abs().max() > 0

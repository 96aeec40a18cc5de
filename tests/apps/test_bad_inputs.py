"""Bad files, flags, checkpoints and machines: each leaves one sentence, an exit code, and no file."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import save_file

from atelier.images import Picture, write
from atelier.store import weights

Prepare = Callable[[Path, pytest.MonkeyPatch], object]

USAGE, INPUT, WEIGHTS, OUTPUT, RESOURCE, TRAINING = 2, 3, 4, 5, 6, 7
PAIR = "stylize photo.png -s style.png -o out.png"
TINY = "--method gatys --encoder tiny.safetensors --size 32 --iterations 1 --coarse-iterations 1"
PAINT = f"{PAIR} {TINY}"
LORA = "train lora --pictures set --pipeline xl.safetensors"
WORDS = "stylize photo.png --text red -o out.png"
RECIPE = {"method": "gatys", "knobs": {}, "controls": {}, "versions": {}, "machine": {}}
METHOD = '''
from atelier.core.knobs import Knobs, knob
from atelier.methods.base import Method, Paper

class Brush(Method):
    """Paints."""
    name = "brush"
    paper = Paper("A", 2000, "B", "https://example.org")
    class Knobs(Knobs):
        bristles: int = knob(9, "How many.", ge=1)
    def transfer(self, job, knobs):
        {body}
'''


@dataclass(frozen=True)
class Row:
    """One bad input: its command, the exit code, and a piece of the sentence."""

    id: str
    command: str
    code: int
    says: str
    prepare: Prepare = lambda folder, patch: None
    env: dict[str, str] = field(default_factory=dict)


def _put(name: str, data: bytes | str) -> Prepare:
    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return prepare


def _cut(kept: float, source: str, target: str) -> Prepare:
    """The first part of a file that was whole; an image of that suffix is made of the photo."""

    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
        if source != target or not (folder / source).exists():
            Image.open(folder / "photo.png").save(folder / target)
        data = (folder / target).read_bytes()
        (folder / target).write_bytes(data[: int(len(data) * kept)])

    return prepare


def _png_bomb(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A few bytes that declare 60,000 x 60,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)


def _nan_tiff(folder: Path, patch: pytest.MonkeyPatch) -> None:
    values = np.full((8, 8, 3), 0.5, np.float32)
    values[3, 3] = np.nan
    tifffile.imwrite(folder / "photo.tif", values, photometric="rgb")


def _black_mask(folder: Path, patch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8), 0).save(folder / "mask.png")


def _raise(owner: Any, name: str, error: BaseException) -> Prepare:
    """What a machine does that the test cannot be made to do."""

    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        patch.setattr(owner, name, fail)

    return prepare


def _without(package: str) -> Prepare:
    """A machine on which this package is not installed."""
    return lambda folder, patch: patch.setitem(sys.modules, package, None)


def _closed_folder(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may write anywhere


def _no_cuda(folder: Path, patch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")


def _other_tensors(folder: Path, patch: pytest.MonkeyPatch) -> None:
    save_file({"mapping.weight": torch.zeros(2)}, folder / "enc.safetensors")


def _wrong_shape(folder: Path, patch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    state = load_file(folder / "tiny.safetensors")
    save_file({**state, "conv2_1.weight": torch.zeros(1, 1, 3, 3)}, folder / "enc.safetensors")


class _Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch hacked",)


def _pickle_bomb(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "enc.pth").write_bytes(pickle.dumps({"weight": _Hostile()}))


def _damaged_install(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ATELIER_HOME", str(folder / "home"))
    installed = weights.add("vgg19.imagenet", folder / "tiny.safetensors", force=True)
    data = bytearray(installed.read_bytes())
    data[-1] ^= 1
    installed.write_bytes(data)


def _made(folder: Path, changes: dict[str, Any]) -> Path:
    """A picture with a recipe, as atelier leaves it beside its inputs."""
    picture, source = Picture.open(folder / "photo.png"), Picture.open(folder / "style.png")
    recipe = {
        **RECIPE,
        "content": {"name": "photo.png", "sha256": picture.sha256},
        "styles": [{"name": "style.png", "sha256": source.sha256}],
    }
    picture.recipe = {**recipe, **changes}
    write(picture, folder / "made.png")
    return folder / "made.png"


def _recipe(**changes: Any) -> Prepare:
    return lambda folder, patch: _made(folder, changes)


def _input_gone(folder: Path, patch: pytest.MonkeyPatch) -> None:
    _made(folder, {})
    (folder / "photo.png").unlink()


def _input_changed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    _made(folder, {})
    shutil.copy(folder / "style.png", folder / "photo.png")


def _replay_exists(folder: Path, patch: pytest.MonkeyPatch) -> None:
    shutil.copy(_made(folder, {}), folder / "made-replay.png")


def _set(*captions: str | None, damaged: bool = False) -> Prepare:
    """A training set `set` of one picture for each caption, and a file `xl.safetensors` of SDXL."""

    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
        (folder / "set").mkdir()
        for index, text in enumerate(captions):
            shutil.copy(folder / "photo.png", folder / "set" / f"{index}.png")
            if text is not None:
                (folder / "set" / f"{index}.txt").write_text(text)
        if damaged:
            (folder / "set" / "0.png").write_bytes(b"no picture")
        save_file({"conditioner.embedders.0.weight": torch.zeros(2)}, folder / "xl.safetensors")
        save_file({"lora_te2_x.lora_up.weight": torch.zeros(2, 2)}, folder / "xl-lora.safetensors")

    return prepare


def _brush(body: str) -> Prepare:
    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> None:
        (folder / "own").mkdir()
        (folder / "own" / "brush.py").write_text(METHOD.replace("{body}", body))

    return prepare


OWN = {"ATELIER_METHODS": "own"}
VGG19_HASH = "sha256 dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"
TABLE = [
    # the photo
    Row("photo-missing", "stylize nosuch.xyz -s style.png -o out.png", INPUT, "'nosuch.xyz' does not exist"),
    Row("photo-near", "stylize phto.png -s style.png -o out.png", INPUT, "did you mean 'photo.png'?"),
    Row("photo-empty", PAIR, INPUT, "'photo.png' is empty", _put("photo.png", b"")),
    Row("photo-cut", "stylize a.jpg -s style.png", INPUT, "cut short", _cut(0.5, "photo.png", "a.jpg")),
    Row("photo-text", "stylize a.jpg -s style.png", INPUT, "is not a picture", _put("a.jpg", "dear diary")),
    Row("photo-folder", "stylize . -s style.png -o out.png", USAGE, "several pictures need a folder"),
    Row("photo-html", PAIR, INPUT, "give a JPEG, PNG", _put("photo.png", "<!doctype html><p>Sign in")),
    Row("photo-bomb", PAIR, INPUT, "3,600.0 million pixels", _png_bomb),
    Row(
        "photo-large",
        f"{PAIR} --max-pixels 100",
        INPUT,
        "2,240 pixels, and the limit is 100: make it smaller, or raise --max-pixels",
    ),
    Row("photo-nan", "stylize photo.tif -s style.png", INPUT, "not finite", _nan_tiff),
    Row("photo-pipe", "stylize /dev/null -s style.png -o out.png", INPUT, "is not a regular file"),
    Row(
        "photo-unreadable",
        *(PAIR, INPUT, "'photo.png' cannot be read (Permission denied)"),
        _raise(Path, "read_bytes", PermissionError(errno.EACCES, "Permission denied")),
    ),
    Row("photo-newline", "stylize a\nb.png -s style.png -o out.png", INPUT, "'a b.png' does not exist"),
    Row("photo-absent", "stylize", USAGE, "PHOTO... is missing: see 'atelier stylize --help'"),
    Row("photo-second", "stylize photo.png style.png", USAGE, "needs a style: give --style PAINTING"),
    # the style and the mask
    Row("webp-size", "stylize photo.png -s style.png --size 16384 -o out.webp", OUTPUT, "16,383 pixels"),
    Row("webp-wide", "generate texture -s style.png --size 16384x8 -o out.webp", OUTPUT, "16,383 pixels"),
    Row("style-absent", "stylize photo.png -o out.png", USAGE, "needs a style"),
    Row("style-missing", "stylize photo.png -s styl.png -o out.png", INPUT, "did you mean 'style.png'?"),
    Row(
        "style-cut", "stylize photo.png -s a.webp", INPUT, "'a.webp' cannot", _cut(0.4, "photo.png", "a.webp")
    ),
    Row("mask-black", f"{PAINT} --mask mask.png", INPUT, "black everywhere", _black_mask),
    Row("mask-missing", f"{PAINT} --mask mask.png", INPUT, "'mask.png' does not exist"),
    Row(
        "mask-damaged",
        f"{PAINT} --mask m.gif",
        INPUT,
        "its header is invalid",
        _put("m.gif", b"GIF89a\x08"),
    ),
    # flags
    Row("flag-near", f"{PAIR} --strenght 1", USAGE, "did you mean '--strength'?"),
    Row("flag-strange", f"{PAIR} --zzzz", USAGE, "no option '--zzzz' of 'atelier stylize': see"),
    Row("flag-bare", f"{PAIR} --size", USAGE, "'--size' requires an argument"),
    Row("command-near", "stylise photo.png", USAGE, "did you mean 'stylize'?"),
    Row("method-near", f"{PAIR} --method gatis", USAGE, "no method 'gatis': did you mean 'gatys'?"),
    Row("quality-near", f"{PAIR} --quality drfat", USAGE, "did you mean 'draft'?"),
    Row("strength-2", f"{PAIR} --strength 2", USAGE, "--strength 2 is not allowed"),
    Row("strength-minus", f"{PAIR} --strength -1", USAGE, "greater than or equal to 0"),
    Row("strength-nan", f"{PAIR} --strength nan", USAGE, "--strength nan is not allowed"),
    Row("strength-text", f"{PAIR} --strength half", USAGE, "should be a valid number"),
    Row("size-0", f"{PAIR} --size 0", USAGE, "--size 0 is not allowed"),
    Row("size-huge", f"{PAIR} --size 99999999", USAGE, "less than or equal to 32768"),
    Row("size-text", f"{PAIR} --size large", USAGE, "--size large is not allowed"),
    Row("size-5", f"{PAINT} --size 5 --style-layers relu5_1 --padding reflect", INPUT, "px is too small"),
    Row("colour", f"{PAIR} --colour contents", USAGE, "it should be 'style' or 'content'"),
    Row(
        "weights-count",
        f"{PAIR} --style-weights 1 --style-weights 2",
        USAGE,
        "2 style weights were given for 1",
    ),
    Row("weights-minus", f"{PAIR} --style-weights -1", USAGE, "must not be negative"),
    Row("weights-zero", f"{PAIR} --style-weights 0", USAGE, "at least one must be above 0"),
    Row("weights-text", f"{PAIR} --style-weights much", USAGE, "--style-weights much is not allowed"),
    Row("seed", f"{PAIR} --seed -3", USAGE, "--seed -3 is not allowed"),
    Row("device-name", f"{PAIR} --device gpu", USAGE, "no device 'gpu': allowed are auto, cpu, cuda"),
    Row("device-absent", f"{PAIR} --device cuda", RESOURCE, "use --device cpu, or auto", _no_cuda),
    Row("device-99", f"{PAIR} --device cuda:99", RESOURCE, "the device 'cuda:99' does not work"),
    Row("threads", f"{PAIR} --threads 0", USAGE, "--threads 0 is not allowed"),
    Row("knob-range", f"{PAIR} --method gatys --step-size 3", USAGE, "--step-size 3 is not allowed"),
    Row("knob-choice", f"{PAIR} --method gatys --optimiser sgd", USAGE, "'adam' or 'lbfgs'"),
    Row("knob-foreign", f"{PAIR} --bristles 3", USAGE, "add --method brush", _brush("return"), OWN),
    Row("layer-near", f"{PAINT} --style-layers relu3_9", USAGE, "did you mean 'relu3_"),
    Row(
        "layer-weights",
        f"{PAINT} --style-layer-weights 1",
        USAGE,
        "--style-layer-weights has 1 numbers for 4",
    ),
    Row("start", f"{PAINT} --start nois", USAGE, "did you mean 'noise'?"),
    # the output
    Row("output-bare", "stylize photo.png -s style.png -o out", USAGE, "use one of .jpg, .jpeg, .png"),
    Row(
        "output-kind", "stylize photo.png -s style.png -o out.psd", USAGE, "no extension that can be written"
    ),
    Row("output-exists", "stylize photo.png -s style.png -o style.png", OUTPUT, "give --overwrite"),
    Row(
        "output-nowhere",
        "stylize photo.png -s style.png -o no/out.png",
        OUTPUT,
        "'no' does not exist: create it",
    ),
    Row(
        "output-folder",
        *("stylize photo.png -s style.png -o out.png", OUTPUT, "is not a regular file"),
        lambda folder, patch: (folder / "out.png").mkdir(),
    ),
    Row("output-long", f"stylize photo.png -s style.png -o {'x' * 300}.png", OUTPUT, "too long"),
    Row("bits-12", f"{PAIR} --bits 12", USAGE, "--bits is 8 or 16, not 12"),
    Row("bits-text", f"{PAIR} --bits deep", USAGE, "--bits has a value that is not allowed"),
    Row("bits-jpeg", "stylize photo.png -s style.png -o a.jpg --bits 16", USAGE, ".jpg holds only 8 bits"),
    # checkpoints
    Row("encoder-name", f"{PAIR} --encoder vgg91.imagenet", WEIGHTS, "did you mean 'vgg19.imagenet'?"),
    Row("encoder-file", f"{PAIR} --encoder no/enc.pth", WEIGHTS, "there is no weights file no/enc.pth"),
    Row(
        "encoder-absent", f"{PAIR} --encoder vgg19.imagenet", WEIGHTS, "`atelier weights pull vgg19.imagenet`"
    ),
    Row("encoder-hash", f"{PAIR} --encoder vgg19.imagenet", WEIGHTS, VGG19_HASH),
    Row("encoder-path", f"{PAIR} --encoder vgg19.imagenet", WEIGHTS, "weights/vgg19.imagenet/vgg19-dcbb9e9d"),
    Row("pipeline-absent", f"{PAIR} --method styleid", WEIGHTS, "weights pull stable_diffusion.v1_5"),
    Row("pipeline-file", f"{PAIR} --method styleid --pipeline tiny.safetensors", WEIGHTS, "another network"),
    Row("style-unsaid", "stylize photo.png --method diffusion_in_style", USAGE, "give it with --weights"),
    Row("object-unsaid", "harmonise photo.png", USAGE, "--mask is missing"),
    Row(
        "object-method",
        "harmonise photo.png --mask photo.png --method nnst",
        *(USAGE, "nnst does not harmonise objects: allowed: harmonise, phdiffusion"),
    ),
    Row("clip-missing", f"{WORDS} --method clipstyler", WEIGHTS, "weights pull clip_vit_b32.openai"),
    Row("words-encoder", f"{WORDS} {TINY}", USAGE, "predicts the statistics of another encoder"),
    Row("words-unknown", "stylize photo.png --text steampunk", USAGE, "'steampunk' is not known"),
    Row("clip-folder", f"{WORDS} --method clipstyler --clip .", WEIGHTS, "holds no model.safetensors"),
    Row("decoder-unsaid", "stylize photo.png --method clipstyler_fast", USAGE, "give it with --weights"),
    Row("encoder-text", f"{PAIR} --encoder e.pth", WEIGHTS, "is not a checkpoint", _put("e.pth", "hello")),
    Row(
        "encoder-cut",
        *(f"{PAIR} --encoder tiny.safetensors", WEIGHTS, "is truncated"),
        _cut(0.7, "tiny.safetensors", "tiny.safetensors"),
    ),
    Row(
        "encoder-other",
        f"{PAIR} --encoder enc.safetensors",
        WEIGHTS,
        "enc.safetensors: these 1 tensors",
        _other_tensors,
    ),
    Row(
        "encoder-shape",
        f"{PAIR} --encoder enc.safetensors",
        WEIGHTS,
        "conv2_1.weight has shape",
        _wrong_shape,
    ),
    Row("encoder-hostile", f"{PAIR} --encoder enc.pth", WEIGHTS, "so it is rejected", _pickle_bomb),
    Row("encoder-html", f"{PAIR} --encoder e.pth", WEIGHTS, "is a web page", _put("e.pth", "<html>Log in")),
    Row(
        "encoder-lfs",
        *(f"{PAIR} --encoder e.pth", WEIGHTS, "is a Git LFS pointer"),
        _put("e.pth", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    ),
    Row("encoder-empty", f"{PAIR} --encoder e.pth", WEIGHTS, "is empty", _put("e.pth", b"")),
    # replay
    Row("replay-plain", "replay photo.png", INPUT, "carries no atelier recipe"),
    Row("replay-missing", "replay mad.png", INPUT, "did you mean 'made.png'?", _recipe()),
    Row(
        "replay-broken", "replay made.png", INPUT, "the recipe in made.png cannot be read", _recipe(styles=3)
    ),
    Row("replay-knob", "replay made.png", USAGE, "no knob 'widht'", _recipe(knobs={"widht": 1})),
    Row("replay-gone", "replay made.png", INPUT, "'photo.png' is missing", _input_gone),
    Row("replay-changed", "replay made.png", INPUT, "is not the picture that was used", _input_changed),
    Row("replay-exists", "replay made.png", OUTPUT, "'made-replay.png' exists", _replay_exists),
    Row(
        "replay-styles",
        "replay made.png -s a.png -s b.png",
        USAGE,
        "has 1 style, and 2 were given",
        _recipe(),
    ),
    # weights, methods, examples, demo, training
    Row("weights-name", "weights path vgg19.imagnet", WEIGHTS, "did you mean 'vgg19.imagenet'?"),
    Row("weights-hash", "weights add vgg19.imagenet tiny.safetensors", WEIGHTS, "not the published"),
    Row(
        "weights-picture",
        "weights add vgg19.imagenet photo.png --force",
        WEIGHTS,
        "photo.png is not a checkpoint",
    ),
    Row("weights-file", "weights add vgg19.imagenet no.pth", WEIGHTS, "no.pth cannot be read"),
    Row("weights-damaged", "weights verify", WEIGHTS, "weights pull vgg19.imagenet", _damaged_install),
    Row("methods-name", "methods gatis", USAGE, "did you mean 'gatys'?"),
    Row("examples-bare", "examples", USAGE, "FOLDER is missing"),
    Row("examples-there", "examples .", OUTPUT, "exists", _put("photos/astronaut.png", b"mine")),
    Row("examples-size", "examples new --size 8", USAGE, "64 to 4096"),
    Row("examples-file", "examples photo.png", OUTPUT, "Not a directory"),
    Row("demo-quality", "demo new --quality drfat", USAGE, "did you mean 'draft'?"),
    Row("demo-file", "demo photo.png", OUTPUT, "cannot use 'photo.png' (file exists)"),
    # LoRA
    Row("lora-none", "lora data nosuch", INPUT, "the folder 'nosuch' does not exist"),
    Row("lora-empty", "lora data set", INPUT, "'set' has no pictures", _set()),
    Row("lora-swap", "lora tags set --replace sky", USAGE, "'sky' is no replacement: use OLD=NEW", _set("a")),
    Row("lora-bare", "lora tags set --remove a", USAGE, "would become empty", _set("a", "a, b")),
    Row("lora-exists", "lora crop set set", OUTPUT, "'set' exists", _set("a")),
    Row("lora-damaged", "lora crop set new", TRAINING, "cannot be decoded", _set("a", damaged=True)),
    Row("lora-few", LORA, TRAINING, "3 pictures are too few for a LoRA", _set("a", "b", "c")),
    Row("lora-caption", LORA, TRAINING, "3.png has no caption: write 3.txt", _set("a", "b", "c", None)),
    Row("lora-blank", LORA, TRAINING, "0.txt is empty", _set("", "b", "c", "d")),
    Row("lora-cut", LORA, TRAINING, "it is not a picture", _set(*"abcd", damaged=True)),
    Row("lora-xl", LORA, WEIGHTS, "a model of the SDXL series", _set(*"abcd")),
    Row("lora-xl-file", "lora inspect xl-lora.safetensors", WEIGHTS, "is a LoRA for SDXL", _set("a")),
    Row("merge-xl", "lora merge xl.safetensors --lora a -o b.safetensors", WEIGHTS, "SDXL series", _set("a")),
    Row("merge-none", "lora merge xl.safetensors -o b", USAGE, "there is nothing to merge", _set("a")),
    Row("merge-share", "lora merge a --lora b=x -o c", USAGE, "'x' is no share: use --lora FILE=NUMBER"),
    Row("train-bare", "train encoder", USAGE, "--photos is required but was not given"),
    Row("train-one", "train encoder --photos a.npz", USAGE, "--validation is required"),
    Row(
        "train-nothing",
        "train encoder --photos a*.npz --validation b.npz",
        TRAINING,
        "no training data at 'a*.npz'",
    ),
    Row(
        "train-damaged",
        *("train encoder --photos a.npz --validation a.npz", TRAINING, "a.npz is not a shard"),
        _put("a.npz", b"PK\x03\x04 cut"),
    ),
    Row(
        "train-empty",
        *("train cyclegan --a empty --b photo.png", TRAINING, "no pictures below empty"),
        lambda folder, _: (folder / "empty").mkdir(),
    ),
    Row(
        "train-single",
        *("train cyclegan --a photo.png --b style.png", TRAINING, "1 picture is too few to hold out 16"),
    ),
    Row(
        "train-domain",
        *("train starganv2 --domain one=photo.png", TRAINING, "at least two domains are needed"),
    ),
    Row(
        "train-crop",
        "train starganv2 --domain a=photo.png --domain b=style.png --held-back 0 --crop 48",
        *(TRAINING, "crop = 48 is not a power of 2"),
    ),
    Row("train-style", "train mgan --photos photo.png", USAGE, "--style is required"),
    Row(
        "train-small",
        *("train mgan --photos photo.png --style style.png --crop 16", USAGE, "--crop 16 is not allowed"),
    ),
    Row("train-range", "train encoder --photos a --validation b --blur 2", USAGE, "--blur 2 is not allowed"),
    # the machine
    Row(
        "home-file",
        "weights add vgg19.imagenet tiny.safetensors --force",
        OUTPUT,
        "set ATELIER_HOME",
        env={"ATELIER_HOME": "photo.png"},
    ),
    Row(
        "methods-broken",
        "methods",
        1,
        "own/brush.py cannot be loaded: ZeroDivisionError",
        _put("own/brush.py", "1 / 0"),
        OWN,
    ),
    Row("methods-nowhere", "methods", 1, "/own', which is not a folder", env=OWN),
    Row(
        "disk-full",
        PAINT,
        OUTPUT,
        "is left for",
        _raise(Path, "write_bytes", OSError(errno.ENOSPC, "No space left")),
    ),
    Row(
        "disk-quota",
        PAINT,
        OUTPUT,
        "is left for",
        _raise(Path, "replace", OSError(errno.EDQUOT, "Quota")),
    ),
    Row("folder-closed", PAIR, OUTPUT, "the folder '.' is not writable", _closed_folder),
    Row("protocol-unknown", "bench smok", USAGE, "there is no protocol 'smok': did you mean 'smoke'"),
    Row("protocol-absent", "bench none.toml", INPUT, "the protocol 'none.toml' cannot be read"),
    Row("protocol-data", "bench styleid-800 --out o", INPUT, "--data names the folder (59 more"),
    Row("studio-token", "studio --no-page --folder s --token abc", USAGE, "the token needs 8 letters"),
    Row("studio-weights", "studio --no-page --folder s --port 0 --weights w", WEIGHTS, "w' does not exist"),
    Row(
        "studio-host",
        "studio --no-page --folder s --host 192.0.2.1",
        OUTPUT,
        "cannot listen at 192.0.2.1:7860",
    ),
    Row("studio-page", "studio --folder s", RESOURCE, "pip install 'atelier[studio]'", _without("gradio")),
    Row("study-absent", "study score .", INPUT, "holds no votes (study.sqlite): run `atelier study"),
    Row("grid-absent", "bench report .", INPUT, "holds no grid (grid.sqlite): run `atelier bench PROTOCOL`"),
    Row("memory", f"{PAIR} -m brush", RESOURCE, "use a smaller --size", _brush("raise MemoryError"), OWN),
    Row(
        "a-bug",
        f"{PAIR} -m brush",
        1,
        "please report it with the output of --debug",
        _brush("return 1 / 0"),
        OWN,
    ),
]


def _contents(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in folder.rglob("*"):
        with path.open("rb") if path.is_file() else BytesIO() as file:
            found[str(path)] = file.read()
    return found


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.id)
def test_one_sentence(row: Row, folder: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    for name, value in row.env.items():
        monkeypatch.setenv(name, str(folder / value))
    with monkeypatch.context() as patch:
        row.prepare(folder, patch)
        before = _contents(folder)
        shown = run(row.command)
    lines = shown.err.splitlines()
    sentences = [line for line in lines if line.startswith("atelier: ")]
    assert shown.code == row.code, shown.err
    assert sentences == lines[-1:]
    assert row.says in sentences[0]
    assert "Traceback" not in shown.err + shown.out
    assert _contents(folder) == before


def test_the_table_is_long_and_its_names_differ() -> None:
    assert len(TABLE) >= 50
    assert len({row.id for row in TABLE}) == len(TABLE)

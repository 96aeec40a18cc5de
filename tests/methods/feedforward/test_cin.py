"""CIN: styles by number or picture, mixed by shares, and training on a few paintings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

from atelier import Picture, UsageError, WeightsError, stylize
from atelier.images import write
from atelier.methods.base import Batch, Job
from atelier.methods.feedforward import cin
from atelier.methods.feedforward.cin import Cin, _criterion, look_of
from atelier.methods.trainable import DataInfo
from atelier.networks.conditional import Pastiche, load_pastiche
from atelier.store import records, weights
from atelier.training.datasets import read, read_styles, style_files
from atelier.training.settings import settings_of

Floats = npt.NDArray[np.float32]
Make = Callable[..., Picture]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def styles3(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three styles whose pictures are not known, as in the published networks."""
    torch.manual_seed(0)
    network = Pastiche(3, (8, 8, 16), 1)
    torch.nn.init.normal_(network.shift)
    torch.nn.init.normal_(network.scale, 1)
    path = tmp_path_factory.mktemp("cin") / "styles.safetensors"
    save_file(network.state_dict(), path)
    return str(path)


@pytest.fixture
def make(photo: Floats, painting: Floats, styles3: str) -> Make:
    def call(content: Any = photo, style: Any = painting, **settings: Any) -> Picture:
        few = {"weights": styles3, "numbers": (0,), "device": "cpu", "half": False}
        return stylize(content, style, method="cin", **few | settings)

    return call


def test_each_number_selects_a_style(make: Make) -> None:
    made = [make(numbers=(number,)).pixels for number in range(3)]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert np.abs(made[first] - made[second]).mean() > 0.01


def test_without_numbers_the_picture_selects_the_style(
    make: Make, painting: Floats, styles3: str, tmp_path: Path
) -> None:
    state = load_file(styles3)
    pictures = [painting, 1 - painting**3, painting[..., ::-1] * 0.4]
    tensors = [Picture.of(np.ascontiguousarray(one)).tensor() for one in pictures]
    state["looks"] = torch.stack([look_of(one) for one in tensors])
    path = tmp_path / "known.safetensors"
    save_file(state, path)
    for number, picture in enumerate(pictures):
        chosen = make(style=np.ascontiguousarray(picture), weights=str(path), numbers=())
        wanted = make(weights=str(path), numbers=(number,))
        assert np.abs(chosen.pixels - wanted.pixels).mean() < 0.01
    mixed = make(style=pictures[:2], weights=str(path), numbers=(), style_weights=(1, 3))
    wanted = make(weights=str(path), numbers=(0, 1), shares=(1, 3))
    assert np.abs(mixed.pixels - wanted.pixels).mean() < 0.01


def test_descriptors_are_independent_of_size(painting: Floats) -> None:
    picture = Picture.of(painting).resized((480, 360)).tensor()
    look = look_of(picture)
    assert look.shape == (9,)
    for size in ((120, 90), (960, 720)):
        assert (look_of(Picture.from_tensor(picture).resized(size).tensor()) - look).abs().max() < 0.01
    for other in (1 - 0.5 * painting, painting[..., ::-1] * 0.7):
        assert (look_of(Picture.of(np.ascontiguousarray(other)).tensor()) - look).abs().max() > 0.05
    assert torch.isfinite(look_of(torch.zeros(1, 3, 1, 1))).all()


@pytest.fixture(scope="module")
def named(styles3: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same three styles with names, one of them not in ASCII."""
    state = load_file(styles3)
    network = Pastiche(3, (8, 8, 16), 1, traits=9)
    network.learn(torch.rand(3, 9), ("dawn", "mañana", "dusk"))
    path = tmp_path_factory.mktemp("cin") / "named.safetensors"
    save_file(state | {"looks": network.looks, "labels": network.labels}, path)
    return str(path)


def test_names_select_the_styles_without_a_picture(make: Make, named: str) -> None:
    by_name = partial(make, style=[], weights=named, numbers=())
    for number, name in enumerate(("dawn", "mañana", "dusk")):
        assert np.array_equal(by_name(style_name=(name,)).pixels, make(numbers=(number,)).pixels)
    mixed = by_name(style_name=("dusk", "dawn"), shares=(1, 3))
    assert np.array_equal(mixed.pixels, make(numbers=(2, 0), shares=(1, 3)).pixels)
    assert np.array_equal(by_name().pixels, make(numbers=(0,)).pixels)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"style_name": ("down",)}, "has no style 'down': did you mean 'dawn'"),
        ({"style_name": ("dawn",), "numbers": (1,)}, "by name and by number"),
        ({"style_name": ("dawn", "dusk"), "shares": (1,)}, "1 shares were given for 2 styles"),
    ],
)
def test_invalid_names_are_errors(make: Make, named: str, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make(style=[], weights=named, **{"numbers": ()} | settings)


def test_networks_without_names_ask_for_numbers(make: Make) -> None:
    with pytest.raises(UsageError, match="does not store the names of its styles: give --numbers"):
        make(numbers=(), style_name=("dawn",))


def test_numbers_override_the_style_picture(make: Make, painting: Floats) -> None:
    events: list[Any] = []
    made = make(style=[1 - painting, painting[::3]], progress=events.append)
    assert np.array_equal(made.pixels, make().pixels)
    assert len(events) == 1


def test_shares_mix_the_styles(make: Make) -> None:
    first, second = make(numbers=(0,)).pixels, make(numbers=(1,)).pixels
    even = make(numbers=(0, 1)).pixels
    assert np.array_equal(even, make(numbers=(0, 1), shares=(2, 2)).pixels)
    assert np.array_equal(first, make(numbers=(0, 1), shares=(3, 0)).pixels)
    assert np.abs(first - make(numbers=(0, 0, 0), shares=(1, 2, 4)).pixels).max() < 1e-5
    assert np.abs(even - (first + second) / 2).max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"numbers": (3,)}, "has no style number 3: use 0 to 2"),
        ({"numbers": (0, -1)}, "has no style number -1"),
        ({"numbers": ()}, "does not store what its styles look like: choose by number"),
        ({"numbers": (), "shares": (1,)}, "shares need names or numbers"),
        ({"numbers": (0, 1), "shares": (1,)}, "1 shares were given for 2 styles"),
        ({"numbers": (0, 1), "shares": (0, 0)}, "at least one must be above 0"),
        ({"numbers": (0, 1), "shares": (2, -1)}, "must not be negative"),
    ],
)
def test_invalid_settings_are_errors(make: Make, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        make(**settings)


@pytest.mark.parametrize("shape", [(17, 400), (1, 1), (3, 5), (64, 1024)])
def test_odd_and_extreme_sizes(make: Make, shape: tuple[int, int]) -> None:
    content = np.random.default_rng(0).random((*shape, 3), dtype=np.float32)
    made = make(content, size=max(shape))
    assert made.pixels.shape == content.shape
    assert np.isfinite(made.pixels).all()


@pytest.mark.parametrize("half", [False, True])
def test_flat_pictures(make: Make, half: bool) -> None:
    for shade in (0, 0.437, 1):
        made = make(np.full((48, 48, 3), shade, np.float32), half=half).pixels
        assert np.isfinite(made).all()
        assert np.ptp(made, axis=(0, 1)).max() < 2 / 255


def test_half_precision_is_close(make: Make) -> None:
    assert np.abs(make().pixels - make(half=True).pixels).mean() < 2 / 255


def test_weights_of_another_network_are_an_error(make: Make, tiny_encoder: Path) -> None:
    with pytest.raises(WeightsError, match=r"tiny.safetensors: .* are not those of a network with cond"):
        make(weights=str(tiny_encoder))
    with pytest.raises(WeightsError, match=r"atelier weights pull cin\.monet"):
        make(weights="cin.monet")


def test_published_records() -> None:
    for tag in ("varied", "monet"):
        record = records.record(f"cin.{tag}")
        assert record.sources[0].endswith(f"/multistyle-pastiche-generator-{tag}.ckpt")
        assert record.converter == "cin"


def test_the_bundled_network_knows_sixteen_styles(painting: Floats) -> None:
    """The styles that the documentation names, each with a picture of its own."""
    network = load_pastiche(weights.load("cin.atelier"))
    assert len(network.names) == network.styles == 16
    assert all(f"`{name}`" in (cin.__doc__ or "") for name in network.names)
    with torch.inference_mode():
        photo = torch.from_numpy(painting).movedim(-1, 0)[None].expand(16, -1, -1, -1)
        painted = network(photo, torch.eye(16)).flatten(1)
    assert float(torch.pdist(painted).min()) > 0.02 * painted.shape[1] ** 0.5


# training


@pytest.fixture
def training(painting: Floats, tmp_path: Path, tiny_encoder: Path) -> Any:
    (tmp_path / "styles").mkdir()
    for name, pixels in (("a", painting), ("b", 0.5 * painting[:20])):
        write(Picture.of(pixels.copy()), tmp_path / "styles" / f"{name}.png")
    (tmp_path / "styles" / "notes.txt").write_text("no picture")
    return settings_of(Cin)(
        photos=("photos",),
        paintings=(str(tmp_path / "styles"),),
        style_side=40,
        encoder=str(tiny_encoder),
        widths=(8, 8, 8),
        blocks=1,
    )


@pytest.fixture
def styles(training: Any) -> list[torch.Tensor]:
    return read_styles(style_files(training.paintings), training.style_side)


def batch(styles: list[torch.Tensor], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    photos = torch.rand(3, 3, 32, 32, generator=generator)
    return Batch({"photos": photos, "styles": styles}, seed, generator)


def network_of(training: Any, styles: list[torch.Tensor]) -> Any:
    return Cin().networks(training, DataInfo(styles))["network"]


def test_training_lowers_the_loss(training: Any, styles: list[torch.Tensor]) -> None:
    method = Cin()
    torch.manual_seed(0)
    network = network_of(training, styles).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    found = []
    for _ in range(12):
        terms = method.losses(network, batch(styles), training)
        assert terms.keys() == {"content", "style", "smoothness"}
        total = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        found.append(float(total.detach()))
    assert min(found[-3:]) < 0.9 * found[0]


def test_the_styles_numbers_have_a_learning_rate_of_their_own(
    training: Any, styles: list[torch.Tensor]
) -> None:
    """The first step of Adam moves each weight by its learning rate."""
    method = Cin()
    network = network_of(training, styles)
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    optimiser = method.optimisers({"network": network}, training)["network"]
    torch.stack(list(method.losses(network, batch(styles), training).values())).sum().backward()
    optimiser.step()
    now = network.state_dict()
    moved = {name: float((now[name] - old).abs().max()) for name, old in before.items()}
    assert moved["transformer.contract.conv1.weight"] == pytest.approx(training.learning_rate, rel=0.01)
    assert moved["scale"] == pytest.approx(training.style_rate * training.learning_rate, rel=0.01)


def test_each_picture_is_compared_with_its_own_style(training: Any, styles: list[torch.Tensor]) -> None:
    """A network that paints the second style for every number has no style loss where that one is drawn."""
    method = Cin()
    judge, grams = method._targets.of(styles, training, lambda: _criterion(training, CPU))
    assert grams["relu1_2"].shape == (2, 8, 8)
    drawn = torch.randint(2, (3,), generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []

    class Painted(torch.nn.Module):
        def forward(self, photos: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
            seen.append(shares)
            return photos

    generator = torch.Generator().manual_seed(0)
    photos = torch.rand(3, 3, 32, 32)
    terms = method.losses(Painted(), Batch({"photos": photos, "styles": styles}, 0, generator), training)
    assert torch.equal(seen[0].argmax(1), drawn)
    assert set(drawn.tolist()) == {0, 1}
    target = {tap: gram[drawn] for tap, gram in grams.items()}
    expected = judge(photos, photos, target)
    style = torch.stack([expected[tap] for tap in judge.style]).mean()
    assert float(terms["style"]) == pytest.approx(float(training.style_weight * style))


def test_exported_weights_give_the_trained_picture(
    training: Any, styles: list[torch.Tensor], tmp_path: Path
) -> None:
    method = Cin()
    torch.manual_seed(0)
    network = network_of(training, styles)
    path = tmp_path / "trained.safetensors"
    torch.nn.init.normal_(network.shift)
    save_file(network.state_dict(), path)
    photo, style = torch.rand(1, 3, 24, 24), Picture.of(training.paintings[0] + "/b.png").tensor()
    job = Job(photo, [style], [1.0], CPU, torch.float32)
    with torch.no_grad():
        expected = network(photo, torch.eye(2)[1:])
    for numbers in ((1,), ()):
        made = method.picture(job, Cin.Knobs(weights=str(path), numbers=numbers))
        assert (made - expected).abs().max() < 1e-3


def test_training_knows_the_names_of_its_pictures(training: Any) -> None:
    info = read("styles", training.model_copy(update={"photos": training.paintings, "held_back": 0})).info
    first = Cin().networks(training, info)["network"]
    assert first.names == tuple(Path(path).stem for path in style_files(training.paintings)) == ("a", "b")
    old = Pastiche(2, (8, 8, 8), 1)  # as trained before networks stored names
    Cin().start(first, old.state_dict())
    assert first.names == ("a", "b")
    assert torch.equal(first.shift, old.shift)


def test_new_styles_reuse_the_transformer(training: Any, styles: list[torch.Tensor], styles3: str) -> None:
    network = network_of(training.model_copy(update={"weights": styles3}), styles)
    assert isinstance(network, Pastiche)
    assert network.styles == 2
    assert torch.equal(network.shift[0], network.shift[1])
    assert network.looks.shape == (2, 9)
    assert network.names == ()
    assert network.transformer.channels == (8, 8, 16, 16, 16, 8, 8, 3)

"""Image transformation networks with conditional instance normalisation.

One network renders many styles by representing a style as the shifts and scales after each instance
normalisation (Dumoulin, Shlens & Kudlur 2017). `Pastiche` has a row of them for each style that it was
trained on. `Arbitrary` predicts them from a picture of any style (Ghiasi et al. 2017) through a short style
vector that can be stored and mixed. Sizes are inferred from the state dict, so published, lighter and slim
networks load.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atelier.core.errors import WeightsError
from atelier.maths.running import held, holding
from atelier.maths.upsampling import doubled_convolution
from atelier.maths.visible import weight_at
from atelier.networks import inception
from atelier.networks.tensorflow import Convolution, fold, translate
from atelier.store.checkpoints import check_state

Widths = tuple[int, int, int]
Norms = Iterator[tuple[Tensor, Tensor]]
Network = TypeVar("Network", bound=nn.Module)

_EPS = 1e-5
#: Stands between the names of styles in a file; no file name holds it.
_BETWEEN = "\0"
# The widest reflect padding is 4 px, which needs at least 5 px.
_SMALLEST = 5


def normalise(
    features: Tensor, shift: Tensor | None = None, scale: Tensor | None = None, *, eps: float = _EPS
) -> Tensor:
    """Instance normalisation of features (B, C, H, W), conditional with `shift` and `scale` (B or 1, C).

    Moments are taken per picture and channel in float32, over the population (Dumoulin et al. 2017, eq. 5).

    >>> normalise(torch.tensor([[[[0.0, 2.0]]]]), torch.ones(1, 1), torch.ones(1, 1) * 3).round().flatten()
    tensor([-2.,  4.])
    """
    # Not `numel` of the shape, which would tie an exported network to the size of its example.
    if features.shape[0] == 1 and features.shape[2] * features.shape[3] > 1:
        # For one picture, batch norm equals instance norm, and supports channels-last and half precision.
        weight, bias = (None if part is None else part[0] for part in (scale, shift))
        if not holding():
            return F.batch_norm(features, None, None, weight, bias, training=True, eps=eps)
        mean, variance = channel_statistics(features)
        mean, variance = held("mean", mean), held("variance", variance)
        return F.batch_norm(features, mean, variance, weight, bias, eps=eps)
    exact = features.float()
    variance, mean = torch.var_mean(exact, (2, 3), correction=0, keepdim=True)
    factor = (variance + eps).rsqrt()
    if scale is not None:
        factor = scale[..., None, None] * factor
    found = (exact - mean) * factor
    return (found if shift is None else found + shift[..., None, None]).to(features.dtype)


def channel_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of features (B, C, H, W), float32, over the population."""
    # Batch norm's own sums are twenty times as fast as var_mean; running statistics make them float32.
    like = torch.zeros(2, features.shape[1], device=features.device)
    mean, variance = torch.batch_norm_update_stats(features, like[0], like[1], 1.0)
    return mean, variance


def large_enough(image: Tensor) -> Tensor:
    """The image, with its last row and column repeated until it is large enough for the mirrored borders."""
    height, width = image.shape[-2:]
    spare = (max(0, _SMALLEST - width), max(0, _SMALLEST - height))
    return F.pad(image, (0, spare[0], 0, spare[1]), mode="replicate") if any(spare) else image


class Transformer(nn.Module):
    """The transformation network: downsampling to a quarter, residual blocks, and upsampling.

    `widths` are the channels at full, half and quarter resolution. With `everywhere`, the style conditions
    every layer (Dumoulin et al.). Otherwise the first three layers have unconditional batch norm (Ghiasi et
    al.).
    """

    def __init__(self, widths: Widths = (32, 64, 128), blocks: int = 5, *, everywhere: bool = False) -> None:
        super().__init__()
        first, second, third = widths
        plain = not everywhere
        self.contract = nn.ModuleDict(
            {
                "conv1": Convolution(3, first, (9, 9), norm=plain),
                "conv2": Convolution(first, second, (3, 3), stride=2, norm=plain),
                "conv3": Convolution(second, third, (3, 3), stride=2, norm=plain),
            }
        )
        self.residual = nn.ModuleDict({f"residual{number}": _block(third) for number in range(1, blocks + 1)})
        self.expand = nn.ModuleDict(
            {
                "conv1": nn.ModuleDict({"conv": Convolution(third, second, (3, 3))}),
                "conv2": nn.ModuleDict({"conv": Convolution(second, first, (3, 3))}),
                "conv3": nn.ModuleDict({"conv": Convolution(first, 3, (9, 9))}),
            }
        )
        styled = (*self.contract.values(),) if everywhere else ()
        styled += tuple(conv for block in self.residual.values() for conv in block.children())
        styled += tuple(block.get_submodule("conv") for block in self.expand.values())
        #: The channels of each conditioned layer, in the order of computation.
        self.channels: tuple[int, ...] = tuple(conv.get_parameter("weight").shape[0] for conv in styled)
        self.everywhere = everywhere

    def forward(self, image: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Stylise `image` (B, 3, H, W) of any size. Input and output are RGB in 0..1.

        `shift` and `scale` (B or 1, sum of `channels`) define the style.
        """
        height, width = image.shape[-2:]
        image = large_enough(image)
        norms = self._norms(len(image), shift, scale)
        features = self._contract(image, norms)
        for block in self.residual.values():
            features = _residual(block, features, norms)
        for name, up in self.expand.items():
            layer = up.get_submodule("conv")
            if name == "conv3":
                features = normalise(layer(features), *next(norms))
            else:
                features = doubled_convolution(features, layer.get_parameter("weight"), None)
                features = normalise(features, *next(norms)).relu_()
        # Sides that are not multiples of 4 come out slightly larger; crop the excess.
        return torch.sigmoid(features[..., :height, :width].float())

    def _norms(self, batch: int, shift: Tensor, scale: Tensor) -> Norms:
        both = (torch.split(part.expand(batch, -1), list(self.channels), 1) for part in (shift, scale))
        return zip(*both, strict=True)

    def _contract(self, image: Tensor, norms: Norms) -> Tensor:
        dtype = self.contract["conv1"].get_parameter("weight").dtype
        features = image.to(dtype, memory_format=torch.channels_last)
        for conv in self.contract.values():
            features = conv(features)
            if self.everywhere:
                features = normalise(features, *next(norms))
            features = features.relu_()
        return features


def _block(channels: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: Convolution(channels, channels, (3, 3)) for name in ("conv1", "conv2")})


def _residual(block: nn.Module, features: Tensor, norms: Norms) -> Tensor:
    first, second = block.children()
    inner = normalise(first(features), *next(norms)).relu_()
    return features + normalise(second(inner), *next(norms))


class Pastiche(nn.Module):
    """A network for the styles that it was trained on, with a row of shifts and scales for each style.

    `looks` (styles, `traits`) are descriptors of the style pictures, used to recognise a style from its
    picture. `labels` are the bytes of the styles' names. Published networks have neither.
    """

    looks: Tensor
    labels: Tensor

    def __init__(
        self, styles: int, widths: Widths = (32, 64, 128), blocks: int = 5, *, traits: int = 0
    ) -> None:
        super().__init__()
        self.register_buffer("looks", torch.zeros(styles, traits))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.uint8))
        self.transformer = Transformer(widths, blocks, everywhere=True)
        self.shift = nn.Parameter(torch.zeros(styles, sum(self.transformer.channels)))
        self.scale = nn.Parameter(torch.ones(styles, sum(self.transformer.channels)))

    @property
    def styles(self) -> int:
        """The number of styles."""
        return len(self.shift)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the styles in the order of their numbers; empty if the network does not know them."""
        return tuple(bytes(self.labels.tolist()).decode().split(_BETWEEN)) if len(self.labels) else ()

    def learn(self, looks: Tensor, names: Sequence[str] = ()) -> None:
        """Replace the styles by new ones with descriptors `looks` (styles, traits) and, if known, names.

        Each new style starts from the mean of the old ones: a trained transformer learns a style quickly.
        """
        self.looks = looks
        self.labels = torch.tensor(list(_BETWEEN.join(names).encode()), dtype=torch.uint8)
        for name in ("shift", "scale"):
            mean = self.get_parameter(name).detach().mean(0, keepdim=True)
            self.register_parameter(name, nn.Parameter(mean.repeat(len(looks), 1)))

    def nearest(self, look: Tensor) -> Tensor:
        """Mixing weights (1, styles) of the styles closest to the descriptor `look` (traits,)."""
        distance = torch.linalg.vector_norm(self.looks.float() - look, dim=1)
        if len(distance) == 1:
            return torch.ones_like(distance)[None]
        between = torch.cdist(self.looks.float(), self.looks.float())
        between.fill_diagonal_(torch.inf)
        reach = between.amin(1).median().clamp(min=1e-4) / 4
        return torch.softmax(-(distance / reach).square(), 0)[None]

    def forward(self, image: Tensor, shares: Tensor) -> Tensor:
        """Stylise `image` (B, 3, H, W), RGB in 0..1; `shares` (B or 1, styles) mixes the styles."""
        painted: Tensor = self.transformer(image, shares @ self.shift, shares @ self.scale)
        return painted

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Ready for use on `device`, with convolutions in `dtype`; no more training after this."""
        fold(self, dtype)
        return self.eval().requires_grad_(False).to(device)


class Statistics(nn.Module):
    """A style predictor: the logarithms of an encoder's channel moments, standardised, and a hidden layer.

    Standardisation uses running statistics of the training styles, because a batch holds too few styles.
    """

    mean: Tensor
    variance: Tensor
    seen: Tensor

    def __init__(self, inputs: int, outputs: int = 256) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, outputs)
        self.outputs = outputs
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("variance", torch.ones(inputs))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, moments: Tensor) -> Tensor:
        """Non-negative moments (B, inputs) to (B, outputs)."""
        levels = (moments.float() + 1e-3).log()
        if self.training:
            self._learn(levels.detach())
        standardised = (levels - self.mean) / (self.variance + 1e-3).sqrt()
        return F.relu(self.hidden(standardised))

    def _learn(self, levels: Tensor) -> None:
        """Update the running moments: a plain average at first, then over about the last thousand batches."""
        share = 1 / min(int(self.seen) + 1, 1000)
        self.mean.lerp_(levels.mean(0), share)
        self.variance.lerp_((levels - self.mean).square().mean(0), share)
        self.seen += 1


class Arbitrary(nn.Module):
    """A network for any style: a predictor computes a style vector, which gives the shifts and scales.

    `predictor` is Inception's trunk, which takes a picture (B, 3, H, W), or `Statistics`, which takes an
    encoder's moments (B, N).
    """

    def __init__(
        self,
        predictor: inception.Trunk | Statistics,
        *,
        vector: int = 100,
        widths: Widths = (32, 64, 128),
        blocks: int = 5,
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.bottleneck = nn.Linear(predictor.outputs, vector)
        self.transformer = Transformer(widths, blocks)
        self.shift = nn.Linear(vector, sum(self.transformer.channels))
        self.scale = nn.Linear(vector, sum(self.transformer.channels))
        nn.init.zeros_(self.shift.bias)
        nn.init.ones_(self.scale.bias)

    def vector(self, seen: Tensor, alpha: Tensor | None = None) -> Tensor:
        """The style vector (B, V) from the predictor's input; `alpha` (1, 1, H, W) is a picture's alpha."""
        if isinstance(self.predictor, inception.Trunk):
            found = self.predictor(seen).float()
            weight = weight_at(alpha, (found.shape[-2], found.shape[-1]))
            if weight is None:
                seen = found.mean((2, 3))
            else:
                seen = (found * weight).sum((2, 3)) / weight.sum()
        else:
            seen = self.predictor(seen)
        made: Tensor = self.bottleneck(seen)
        return made

    def paint(self, image: Tensor, vector: Tensor) -> Tensor:
        """Stylise `image` (B, 3, H, W), RGB in 0..1, with the style `vector` (B or 1, V)."""
        painted: Tensor = self.transformer(image, self.shift(vector), self.scale(vector))
        return painted

    def forward(self, image: Tensor, seen: Tensor) -> Tensor:
        """Stylise `image` with the style that the predictor computes from `seen`."""
        return self.paint(image, self.vector(seen))

    def prepare(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Ready for use on `device`, with convolutions in `dtype`; no more training after this."""
        fold(self, dtype)
        return self.eval().requires_grad_(False).to(device)


@torch.inference_mode(False)
def load_arbitrary(state: Mapping[str, Tensor]) -> Arbitrary:
    """Build the network of Ghiasi et al. from `state`: published, lighter or slim, with either naming.

    Raises `WeightsError` for missing tensors, unexpected tensors or wrong shapes.
    """
    own = arbitrary_from_tensorflow(state)
    widths, blocks = _sizes(own)
    vector = _rows(own, "bottleneck.weight")
    # On the meta device, initialisation does not advance the caller's global random state.
    with torch.device("meta"):
        network = Arbitrary(_predictor(own), vector=vector, widths=widths, blocks=blocks)
    return _filled(network, own, "the style network of Ghiasi et al.")


@torch.inference_mode(False)
def load_pastiche(state: Mapping[str, Tensor]) -> Pastiche:
    """Build the network of Dumoulin et al. from `state`, with either naming.

    Raises `WeightsError` for missing tensors, unexpected tensors or wrong shapes.
    """
    own = pastiche_from_tensorflow(state)
    widths, blocks = _sizes(own)
    styles = _rows(own, "shift")
    own.setdefault("looks", torch.zeros(styles, 0))
    own.setdefault("labels", torch.zeros(0, dtype=torch.uint8))
    with torch.device("meta"):
        network = Pastiche(styles, widths, blocks, traits=own["looks"].shape[-1])
        network.labels = torch.empty_like(own["labels"])
    return _filled(network, own, "the many-style network of Dumoulin et al.")


def arbitrary_from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published variables of Ghiasi et al. to atelier's names; those are kept if present.

    Other contents of the checkpoint (step, optimiser slots, deeper layers, VGG) are dropped.
    """
    if not any(name.startswith("transformer/") for name in state):
        return dict(state)
    heads = ("InceptionV3/", "Conv/", "transformer/")
    kept = {name: value for name, value in state.items() if name.startswith(heads) and _is_used(name)}
    found = {
        re.sub("^Conv[.]", "bottleneck.", re.sub("^InceptionV3[.]", "predictor.", name)): value
        for name, value in translate(kept).items()
    }
    layers = [f"style_params/{layer}/StyleNorm" for layer in _layers(state, everywhere=False)]
    for name, part in (("shift", "Conv"), ("scale", "Conv_1")):
        found |= _joined(state, layers, f"{part}/weights", f"{name}.weight")
        found |= _joined(state, layers, f"{part}/biases", f"{name}.bias")
    if "bottleneck.weight" in found:
        found["bottleneck.weight"] = found["bottleneck.weight"].flatten(1)
    return found


def pastiche_from_tensorflow(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the published variables of Dumoulin et al. to atelier's names; those are kept if present."""
    if not any(name.startswith("transformer/") for name in state):
        return dict(state)
    kernels = {name: value for name, value in state.items() if re.fullmatch("transformer/.*/weights", name)}
    layers = [f"{layer}/InstanceNorm" for layer in _layers(state, everywhere=True)]
    found = translate(kernels)
    found |= _joined(state, layers, "beta", "shift") | _joined(state, layers, "gamma", "scale")
    return found


def _is_used(name: str) -> bool:
    """Whether a variable is a weight in use: not an optimiser slot, and not after Mixed_6e."""
    return re.search(r"/(weights|biases|beta|moving_mean|moving_variance)$", name) is not None and (
        re.search(r"InceptionV3/(Mixed_7|AuxLogits|Logits)", name) is None
    )


def _layers(state: Mapping[str, Tensor], *, everywhere: bool) -> list[str]:
    """TensorFlow's names of the conditioned layers, in the order of computation."""
    blocks = max((int(n) for n in re.findall(r"/residual(\d+)/", " ".join(state))), default=0)
    names = [f"contract/conv{index}" for index in (1, 2, 3)] if everywhere else []
    names += [f"residual/residual{block}/conv{index}" for block in range(1, blocks + 1) for index in (1, 2)]
    names += [f"expand/conv{index}/conv" for index in (1, 2, 3)]
    return [f"transformer/{name}" for name in names]


def _joined(state: Mapping[str, Tensor], layers: list[str], part: str, name: str) -> dict[str, Tensor]:
    """One tensor called `name`, concatenated from the tensors of all layers."""
    names = [f"{layer}/{part}" for layer in layers]
    if missing := [name for name in names if name not in state]:
        raise WeightsError(
            f"{len(missing)} of the network's {len(names)} variables */{part} are missing (first: "
            f"{missing[0]}): use the original published checkpoint"
        )
    # Linear layers are stored as 1x1 convolutions with the output channels last.
    parts = [state[name][0, 0].T if state[name].ndim == 4 else state[name] for name in names]
    return {name: torch.cat(parts, 0 if name.endswith(("weight", "bias")) else 1)}


def _rows(state: Mapping[str, Tensor], name: str) -> int:
    if name not in state or state[name].ndim == 0:
        first = ", ".join(list(state)[:3])
        raise WeightsError(
            f"these {len(state)} tensors (first: {first}) are not those of a network with conditional "
            f"instance normalisation: {name} is missing"
        )
    return state[name].shape[0]


def _sizes(state: Mapping[str, Tensor]) -> tuple[Widths, int]:
    """The widths and the number of residual blocks of the transformer in `state`."""
    first, second, third = (_rows(state, f"transformer.contract.conv{n}.weight") for n in (1, 2, 3))
    blocks = {found[1] for name in state if (found := re.search(r"\.residual(\d+)\.", name))}
    return (first, second, third), len(blocks)


def _predictor(state: Mapping[str, Tensor]) -> inception.Trunk | Statistics:
    if "predictor.hidden.weight" in state:
        outputs, inputs = state["predictor.hidden.weight"].shape
        return Statistics(inputs, outputs)
    return inception.Trunk(thin=max(1, 32 // max(1, _rows(state, "predictor.Conv2d_1a_3x3.weight"))))


def _filled(network: Network, state: Mapping[str, Tensor], what: str) -> Network:
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    check_state(shapes, state, what)
    # Copy the caller's tensors, because preparing the network modifies them.
    own = {
        name: value.clone().float() if value.is_floating_point() else value.clone()
        for name, value in state.items()
    }
    network.load_state_dict(own, assign=True)
    return network

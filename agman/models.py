"""AG-MAN and its baselines: one backbone, one tap or several, and a head that knows attributes.

Every model answers `model(images, attributes)`. Ids of shape (B,) ask one attribute of each
image; ids of shape (B, K) ask K of each image with a single pass of the backbone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agman.attention import (
    AdditiveSpatialAttention,
    AttributeChannelAttention,
    AttributeMask,
    AttributeSpatialAttention,
    SpatialGate,
    pool,
)
from agman.attributes import AttributeSchema
from agman.backbones import (
    SHIPPED,
    MultiLevelFeatures,
    Preprocessing,
    create_backbone,
    load_strictly,
)
from agman.errors import InputError
from agman.storage import read_tensors, write_tensors

MOST_WEIGHTS = 10**7
"""Attributes times dimensions beyond which nobody means it."""

BackboneWeights = str | Path | Mapping[str, Tensor] | None


class Output(NamedTuple):
    """What a model says about images.

    Args:
        embedding: (B, D) or (B, K, D), unit length.
        attention: (B, H, W) or (B, K, H, W) sum-to-one maps, or None.
        logits: (B, attributes) of the classification branch, or None.
    """

    embedding: Tensor
    attention: Tensor | None
    logits: Tensor | None


@dataclass(frozen=True)
class ModelConfig:
    """What every model is made from.

    Args:
        n_attributes: how many attributes can be asked.
        backbone: `lab`, `resnet18`, `resnet34`, `resnet50` or `timm/<network>`.
        dim: width of the head; None for what suits the backbone (512, or 64 for the lab).
    """

    n_attributes: int = 8
    backbone: str = "resnet50"
    dim: int | None = None

    def __post_init__(self) -> None:
        if self.n_attributes < 1:
            raise InputError(f"A model needs at least 1 attribute, not {self.n_attributes}.")
        if self.dim is not None and self.dim < 1:
            raise InputError(f"The width of a head (dim) must be at least 1, not {self.dim}.")
        if self.n_attributes * (self.dim or 1) > MOST_WEIGHTS:
            raise InputError(
                f"A head of {self.n_attributes} attributes and {self.dim or 'the usual'} "
                "dimensions would fill the memory; check both numbers."
            )


class RetrievalModel(nn.Module):
    """A backbone and a head; the head alone knows which attribute is asked.

    Args:
        config: what to build.
        weights: of the backbone; see `agman.backbones.create_backbone`.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    levels: tuple[int, ...] = (3,)
    depth = 3

    def __init__(self, config: ModelConfig, weights: BackboneWeights = None) -> None:
        super().__init__()
        self.config = config
        self.backbone = create_backbone(config.backbone, self.depth, weights)
        self.channels: int = self.backbone.channels[2]
        self.dim: int = config.dim or self.backbone.width
        self.preprocessing: Preprocessing = self.backbone.preprocessing
        self.schema: AttributeSchema | None = None
        self.provenance: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The name that `create_model` knows this kind of model by."""
        return next(name for name, kind in MODELS.items() if type(self) is kind)

    def forward(self, images: Tensor | Mapping[int, Tensor], attributes: Tensor) -> Output:
        """Embed images under attributes.

        Args:
            images: (B, 3, H, W), normalised by `self.preprocessing`; any size the backbone takes;
                or, for a frozen backbone, the taps that it gave for them.
            attributes: (B,) or (B, K) integer ids.

        Raises:
            InputError: ids or images of a wrong shape, or an id that no attribute has.
        """
        taps = images if isinstance(images, Mapping) else self.backbone(images, self.levels)
        ids = attributes[:, None] if attributes.dim() == 1 else attributes
        self._refuse(ids, len(taps[self.levels[-1]]))
        vectors, attention, logits = self.embed(taps, ids)
        embedding = self.normalize(vectors)
        if attributes.dim() == 1:
            embedding = embedding.squeeze(1)
            attention = None if attention is None else attention.squeeze(1)
        return Output(embedding, attention, logits)

    def embed(
        self, taps: Mapping[int, Tensor], attributes: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Vectors (B, K, D) of any length, maps (B, K, H, W) and logits (B, A), or None."""
        raise NotImplementedError

    def normalize(self, vectors: Tensor) -> Tensor:
        """Vectors of unit length; a zero vector stays zero instead of turning into NaN."""
        return F.normalize(vectors, dim=-1)

    def _refuse(self, ids: Tensor, n_images: int) -> None:
        if ids.dim() != 2 or len(ids) != n_images or ids.is_floating_point():
            raise InputError(
                f"Attributes must be integer ids of shape ({n_images},) or ({n_images}, K), not "
                f"{ids.dtype} of shape {tuple(ids.shape)}."
            )
        on_host = ids.device.type == "cpu"  # elsewhere the check would wait for the device
        if (
            on_host
            and ids.numel()
            and not 0 <= int(ids.min()) <= int(ids.max()) < self.n_attributes
        ):
            raise InputError(
                f"Attribute ids run from 0 to {self.n_attributes - 1} in this model, but ids from "
                f"{int(ids.min())} to {int(ids.max())} were asked."
            )

    @property
    def n_attributes(self) -> int:
        """How many attributes can be asked."""
        return self.config.n_attributes

    def all_attributes(self, n_images: int) -> Tensor:
        """Ids (n_images, attributes) that ask every attribute of every image."""
        device = next(self.parameters()).device
        return torch.arange(self.n_attributes, device=device).expand(n_images, -1)

    def embed_all(self, images: Tensor) -> Tensor:
        """Embeddings (B, attributes, D) of every attribute from one pass of the backbone."""
        return self(images, self.all_attributes(len(images))).embedding

    def attend_all(self, images: Tensor) -> Tensor | None:
        """Attention maps (B, attributes, H, W), or None for a model without attention."""
        return self(images, self.all_attributes(len(images))).attention

    def save(self, path: str | Path) -> None:
        """Write weights, config, preprocessing, schema and provenance as one safetensors file.

        Raises:
            InputError: the file cannot be written; an older one is left as it was.
        """
        metadata = {
            "model": self.name,
            "config": dataclasses.asdict(self.config),
            "preprocessing": dataclasses.asdict(self.preprocessing),
            "schema": None if self.schema is None else self.schema.to_dict(),
            "provenance": self.provenance,
        }
        write_tensors(path, self.state_dict(), metadata)


class TripletNet(RetrievalModel):
    """One space for everything: the attribute is ignored."""

    def __init__(self, config: ModelConfig, weights: BackboneWeights = None) -> None:
        super().__init__(config, weights)
        self.project = nn.Linear(self.channels, self.dim)

    def embed(
        self, taps: Mapping[int, Tensor], attributes: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        vectors = self.project(taps[3].mean(dim=(2, 3)))  # (B, D)
        return vectors[:, None].expand(-1, attributes.shape[1], -1), None, None


class CSN(RetrievalModel):
    """Conditional similarity network: one space, and a learned mask for each attribute.

    Source: Veit et al., CVPR 2017, in the form of ASEN's re-implementation (cosine similarity).
    """

    def __init__(self, config: ModelConfig, weights: BackboneWeights = None) -> None:
        super().__init__(config, weights)
        self.project = nn.Linear(self.channels, self.dim)
        self.mask = AttributeMask(config.n_attributes, self.dim)

    def embed(
        self, taps: Mapping[int, Tensor], attributes: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        vectors = self.project(taps[3].mean(dim=(2, 3)))[:, None]  # (B, 1, D)
        return self.mask(vectors, attributes), None, None


class ASENet(RetrievalModel):
    """The attribute-specific embedding network of AAAI 2020; its embedding is C wide."""

    def __init__(self, config: ModelConfig, weights: BackboneWeights = None) -> None:
        super().__init__(config, weights)
        n, c = config.n_attributes, self.channels
        self.spatial = AdditiveSpatialAttention(c, n, self.dim)
        self.channel = AttributeChannelAttention(
            c, n, c, self.dim, activation_name="relu", bias=False
        )
        self.project = nn.Linear(c, c)

    def embed(
        self, taps: Mapping[int, Tensor], attributes: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        codes = F.one_hot(attributes, self.n_attributes).to(taps[3].dtype)  # (B, K, A)
        attention = self.spatial(taps[3], codes)  # (B, K, H, W)
        pooled = pool(taps[3], attention)  # (B, K, C)
        return self.project(self.channel(pooled, codes) * pooled), attention, None


class ASENetV2(RetrievalModel):
    """ASENet_V2: a shared attribute code, dot-product attention; its embedding is C wide."""

    def __init__(self, config: ModelConfig, weights: BackboneWeights = None) -> None:
        super().__init__(config, weights)
        c, d = self.channels, self.dim
        self.codes = nn.Embedding(config.n_attributes, d)
        self.spatial = AttributeSpatialAttention(c, d, d, activation_name="tanh", project=True)
        self.channel = AttributeChannelAttention(c, d, d, d, activation_name="relu")

    def embed(
        self, taps: Mapping[int, Tensor], attributes: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        codes = self.codes(attributes)  # (B, K, D)
        attention = self.spatial(taps[3], codes)  # (B, K, H, W)
        pooled = pool(taps[3], attention)  # (B, K, C)
        return self.channel(pooled, codes) * pooled, attention, None


@dataclass(frozen=True)
class AGMANConfig(ModelConfig):
    """AG-MAN's parts, each of which can be left out, and the released code's quirks.

    Args:
        levels: levels to join, the top last; (3,) alone leaves multi-level features out.
        activation: of the attribute codes.
        channel_attention: the attribute-guided channel attention.
        spatial_gate: the plain spatial gate after the attribute-guided one.
        mask: the learned mask of each attribute.
        classification: the branch that tells which attribute an image is compared on.
        redundant_scalars: quirk: two learned scalars without effect of their own, w (the next
            convolution could hold it) and w2 (the normalisation cancels it).
        unowned_mask: quirk: the last `dim % n_attributes` dimensions of the mask start at 0.1
            for every attribute.
        unguarded_norm: quirk: a zero vector is divided by its length and turns into NaN.
    """

    levels: tuple[int, ...] = (2, 3)
    activation: str = "silu"
    channel_attention: bool = True
    spatial_gate: bool = True
    mask: bool = True
    classification: bool = True
    redundant_scalars: bool = False
    unowned_mask: bool = False
    unguarded_norm: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "levels", tuple(self.levels))
        if list(self.levels) != sorted(set(self.levels) & {1, 2, 3}) or self.levels[-1:] != (3,):
            raise InputError(
                f"AG-MAN joins rising levels that end with 3, such as (2, 3), not {self.levels}."
            )


RELEASED_QUIRKS = {"redundant_scalars": True, "unowned_mask": True, "unguarded_norm": True}


class AGMAN(RetrievalModel):
    """Attribute-guided multi-level attention network.

    Multi-level features are reduced, weighted by an attribute-guided map and a plain gate,
    pooled, gated by channel and masked. Level 4 serves only the classification branch.

    Source: Xiao and Yamasaki, IEEE Access 2024, as their released code computes it.
    """

    Config = AGMANConfig
    config: AGMANConfig

    def __init__(self, config: AGMANConfig, weights: BackboneWeights = None) -> None:
        self.depth = 4 if config.classification else 3
        super().__init__(config, weights)
        self.config = config
        self.levels = config.levels
        n, c, d = config.n_attributes, self.channels, self.dim
        tapped = [self.backbone.channels[i - 1] for i in self.levels]
        self.join = MultiLevelFeatures(tapped) if len(tapped) > 1 else None
        self.reduce = nn.Conv2d(2 * c if self.join else c, d, 1)
        self.codes = nn.Embedding(n, d)
        self.spatial = AttributeSpatialAttention(d, d, d, activation_name=config.activation)
        self.scale = nn.Parameter(torch.ones(1))
        self.gate = SpatialGate() if config.spatial_gate else None
        self.channel = (
            AttributeChannelAttention(d, d, d, d, activation_name=config.activation)
            if config.channel_attention
            else None
        )
        self.mask = AttributeMask(n, d, unowned=config.unowned_mask) if config.mask else None
        self.classifier = self._classifier() if config.classification else None
        self.redundant = (
            nn.ParameterDict({"w": torch.ones(1), "w2": torch.ones(1)})
            if config.redundant_scalars
            else None
        )

    def _classifier(self) -> nn.Module:
        """Level 4 leaves the backbone: it continues from the local features, not from level 3."""
        level4 = self.backbone.levels.pop(3)
        channels = self.backbone.channels[3]
        linear = nn.Linear(channels, self.n_attributes)
        return nn.Sequential(level4, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)

    def embed(
        self, taps: Mapping[int, Tensor], attributes: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        features, local = self._join(taps)
        features = self.reduce(self._scaled(features, "w"))  # (B, D, H, W)
        codes = self.codes(attributes)  # (B, K, D)
        attention = self.spatial(features, codes)  # (B, K, H, W)
        weights = self.scale * attention
        if self.gate is not None:
            weights = weights * self.gate(features, weights)
        vectors = pool(features, weights)  # (B, K, D)
        if self.channel is not None:
            vectors = self._scaled(self.channel(vectors, codes) * vectors, "w2")
        if self.mask is not None:
            vectors = self.mask(vectors, attributes)
        logits = None if self.classifier is None else self.classifier(local)
        return vectors, attention, logits

    def _join(self, taps: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        if self.join is None:
            return taps[3], taps[3]
        return self.join([taps[level] for level in self.levels])

    def _scaled(self, tensor: Tensor, name: str) -> Tensor:
        return tensor if self.redundant is None else self.redundant[name] * tensor

    def normalize(self, vectors: Tensor) -> Tensor:
        if self.config.unguarded_norm:
            return vectors / vectors.norm(dim=-1, keepdim=True)
        return super().normalize(vectors)


MODELS: dict[str, type[RetrievalModel]] = {
    "agman": AGMAN,
    "asenet_v2": ASENetV2,
    "asenet": ASENet,
    "csn": CSN,
    "triplet": TripletNet,
}


def list_models() -> list[str]:
    """Names that `create_model` takes.

    >>> list_models()
    ['agman', 'asenet_v2', 'asenet', 'csn', 'triplet']
    """
    return list(MODELS)


def create_model(
    name: str,
    *,
    n_attributes: int = 8,
    backbone: str = "resnet50",
    weights: BackboneWeights = None,
    released: bool = False,
    **options: Any,
) -> RetrievalModel:
    """A model by name.

    Args:
        name: one of `list_models()`.
        n_attributes: how many attributes can be asked.
        backbone: `lab`, `resnet18`, `resnet34`, `resnet50` or `timm/<network>`.
        weights: of the backbone: None for random, "imagenet" (downloaded), "objects" (the lab's,
            shipped), a safetensors file or a state dict.
        released: AG-MAN with every quirk of the released code; other models have none.
        **options: further fields of the model's config, such as `dim` or, for AG-MAN, `levels`.

    Raises:
        InputError: unknown name or option.

    >>> model = create_model("agman", n_attributes=8, backbone="lab")
    >>> model.embed_all(torch.zeros(2, 3, 96, 96)).shape
    torch.Size([2, 8, 64])
    """
    if name not in MODELS:
        raise InputError(f"There is no model {name!r}; choose one of {', '.join(MODELS)}.")
    kind = MODELS[name]
    fields = [field.name for field in dataclasses.fields(kind.Config)]
    unknown = sorted(set(options) - set(fields))
    if unknown:
        raise InputError(
            f"Model {name!r} has no option {unknown[0]!r}; its options are {', '.join(fields)}."
        )
    quirks = RELEASED_QUIRKS if released and kind is AGMAN else {}
    config = kind.Config(n_attributes=n_attributes, backbone=backbone, **{**quirks, **options})
    return kind(config, weights)


def load(path: str | Path) -> RetrievalModel:
    """A model that `model.save` wrote, in evaluation mode.

    Args:
        path: the file, or `lab/<name>` for weights that come with the package.

    Raises:
        InputError: no such file, a file of another kind, or a damaged one.
    """
    if str(path).startswith("lab/") and not Path(path).exists():
        path = _shipped(str(path).removeprefix("lab/"))
    tensors, metadata = read_tensors(path)
    try:
        model = create_model(metadata["model"], **metadata["config"])
        preprocessing = metadata["preprocessing"]
        model.preprocessing = Preprocessing(
            preprocessing["size"], tuple(preprocessing["mean"]), tuple(preprocessing["std"])
        )
        schema = metadata["schema"]
        model.schema = None if schema is None else AttributeSchema.from_dict(schema)
        if model.schema is not None and len(model.schema) != model.n_attributes:
            raise ValueError(f"{len(model.schema)} names of {model.n_attributes} attributes")
        model.provenance = dict(metadata["provenance"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} holds tensors but no agman model ({error}); for the authors' checkpoints use "
            "agman.load_reference."
        ) from error
    load_strictly(model, tensors, str(path))
    return model.eval()


def _shipped(name: str) -> Path:
    path = SHIPPED / f"{name}.safetensors"
    if not path.exists():
        names = sorted(p.stem for p in SHIPPED.glob("*.safetensors") if p.stem != "objects")
        raise InputError(f"No model lab/{name} comes with the package; there are {names}.")
    return path

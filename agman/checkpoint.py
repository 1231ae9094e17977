"""Checkpoints: the state of a training run, and networks trained with the authors' code.

Nothing here can run code from a file: torch files are opened with `weights_only=True`.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agman.backbones import load_strictly
from agman.errors import InputError
from agman.models import RetrievalModel, create_model
from agman.storage import replacing

# Old checkpoints keep the best score as a numpy number; rebuilding one cannot run code.
_NUMPY_NUMBERS = [
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    np.dtype,
    type(np.dtype("float64")),
    type(np.dtype("float32")),
]


def save_state(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write the tensors, numbers and texts of a training state, whole or not at all."""
    buffer = io.BytesIO()  # torch itself would not say that a disk is full
    torch.save(dict(state), buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_state(path: str | Path) -> dict[str, Any]:
    """Read a training state, or any checkpoint of tensors, numbers and texts, onto the CPU.

    Raises:
        InputError: the file is missing, damaged, larger than it looks, or holds objects that could
            run code.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise InputError(f"There is no checkpoint {path}; check the path.")
    try:
        _refuse_bomb(path)
        with torch.serialization.safe_globals(_NUMPY_NUMBERS):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} holds more than tensors, numbers and texts, or is damaged, and was not "
            "opened, because such a file can run code; save only the state dict and try again."
        ) from error
    except Exception as error:  # a damaged pickle fails in any way, IndexError among them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path} is not a readable checkpoint ({reason}); copy or make it again."
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__} where a dictionary was expected.")
    return state


def _refuse_bomb(path: Path) -> None:
    """Refuse an archive that unpacks to more than its size; torch compresses nothing.

    Raises:
        ValueError, OSError, zipfile.BadZipFile: it does, or is damaged.
    """
    with path.open("rb") as file:
        if file.read(2) != b"PK":  # of the time before archives
            return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("it would unpack to more than its size")


# Where each module of the authors' code lives in ours; the backbone is mapped separately.
_SHARED = {"attr_embedding": "codes", "attr_transform1": "spatial.transform"}
_CHANNEL = {
    "attr_transform2": "channel.transform",
    "fc1": "channel.squeeze",
    "fc2": "channel.excite",
}
_HEADS: dict[str, dict[str, str]] = {
    "agman": {
        **_SHARED,
        **_CHANNEL,
        "w": "redundant.w",
        "w1": "scale",
        "w2": "redundant.w2",
        "conv1": "reduce",
        "img_bn1": "spatial.norm",
        "sa.conv1": "gate.conv",
        "masks": "mask",
        "backbonenet.conv1_1": "join.project.0",
        "backbonenet.fc_embed": "classifier.3",
    },
    "asenet_v2": {
        **_SHARED,
        **_CHANNEL,
        "conv1": "spatial.project",
        "img_bn1": "spatial.norm",
    },
    "asenet": {
        **_CHANNEL,
        "mask_fc1": "spatial.transform",
        "mask_fc2": "channel.transform",
        "conv1": "spatial.project",
        "conv2": "spatial.score",
        "feature_fc": "project",
    },
    "csn": {"masks": "mask", "embed_fc": "project"},
}
_TELLING_KEYS = {
    "agman": "backbonenet.conv1_1.weight",
    "asenet_v2": "attr_embedding.weight",
    "asenet": "mask_fc1.weight",
    "csn": "embed_fc.weight",
}


def load_reference(source: str | Path | Mapping[str, Tensor]) -> RetrievalModel:
    """One of our models with the weights of a network that the authors' scripts trained.

    Reads the released AG-MAN, ASENet, ASENet_V2 and ConditionalSimNet (which one is told from
    the keys), for any number of attributes; the result takes any input size.

    Args:
        source: the checkpoint file that the training script saved, or its state dict.

    Returns:
        The model in evaluation mode.

    Raises:
        InputError: the file cannot be read safely, or a key has no place in either direction.
    """
    where = "the given state dict" if isinstance(source, Mapping) else str(source)
    found: Any = source if isinstance(source, Mapping) else load_state(source)
    found = found.get("state_dict", found)
    if not isinstance(found, Mapping) or not all(
        isinstance(key, str) and _is_whole(value) for key, value in found.items()
    ):
        raise InputError(f"{where} holds more than names and whole tensors; give a state dict.")
    state = {_strip(key): value for key, value in found.items()}
    kind = next((name for name, key in _TELLING_KEYS.items() if key in state), None)
    if kind is None:
        raise InputError(
            f"{where} is not a checkpoint of AG-MAN, ASENet, ASENet_V2 or ConditionalSimNet: none "
            f"of their keys is among its {len(state)}; for models of this package use agman.load."
        )
    renamed = {_rename(key, kind): value for key, value in state.items() if not _is_dead(key)}
    n_attributes, dim = _sizes(state, kind, where)
    with torch.device("meta"):  # compare all shapes before any memory is taken
        plan = create_model(kind, n_attributes=n_attributes, dim=dim, released=True)
    load_strictly(plan, {key: value.to("meta") for key, value in renamed.items()}, where)
    model = create_model(kind, n_attributes=n_attributes, dim=dim, released=True)
    load_strictly(model, renamed, where)
    return model.eval()


def _is_whole(tensor: object) -> bool:
    """Whether it is a plain tensor, each element of which is in the file."""
    return (
        isinstance(tensor, Tensor)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    )


def _strip(key: str) -> str:
    """A key without the wrappers' names: DataParallel's, the triplet network's."""
    return key.removeprefix("module.").removeprefix("embeddingnet.")


def _is_dead(key: str) -> bool:
    """ASEN's backbone carries ImageNet's classifier, which nothing uses."""
    return key in {f"{net}.fc.{part}" for net in _BACKBONES for part in ("weight", "bias")}


_BACKBONES = ("backbonenet", "embeddingnet")


def _rename(key: str, kind: str) -> str:
    module, _, part = key.rpartition(".")
    if not module:  # the scalars w, w1 and w2 are parameters, not modules
        return _HEADS[kind].get(key, key)
    if module in _HEADS[kind]:
        return f"{_HEADS[kind][module]}.{part}"
    net, _, rest = key.partition(".")
    return _rename_backbone(rest) if net in _BACKBONES else key


def _rename_backbone(key: str) -> str:
    module, _, rest = key.partition(".")
    places = {"conv1": "backbone.stem.0", "bn1": "backbone.stem.1", "layer4": "classifier.0"}
    places |= {f"layer{i}": f"backbone.levels.{i - 1}" for i in (1, 2, 3)}
    return f"{places.get(module, module)}.{rest}"


_SIZED_KEYS = {"asenet": "mask_fc1.weight", "csn": "masks.weight"}


def _sizes(state: Mapping[str, Tensor], kind: str, where: str) -> tuple[int, int]:
    """Number of attributes and width of the head, read off the weights."""
    key = _SIZED_KEYS.get(kind, "attr_embedding.weight")
    shape = state[key].shape if key in state else ()
    if len(shape) != 2 or 0 in shape:
        raise InputError(
            f"{where}: {key!r} is missing or no matrix, though it is {kind}; take the whole file."
        )
    return (shape[1], shape[0]) if kind == "asenet" else (shape[0], shape[1])

"""The network in the page: AG-MAN as ONNX, run by onnxruntime-web on the reader's own machine.

The explorer carries the exported network, a gallery with PyTorch's embeddings, and drawings of one
garment in all its variants; `explorer_assets/live.js` asks the network about what the reader makes
of it. onnxruntime-web lies beside the built book if `make vendor` has fetched it.
"""

from __future__ import annotations

import base64
import io
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from agman.attributes import AttributeTable
from agman.course.explorers import Explorer, _explorer, _labels, _pictures, _refuse_nothing
from agman.datasets.wardrobe import Outfit, draw
from agman.errors import InputError
from agman.export import export
from agman.loading import prepare
from agman.models import RetrievalModel

DRESS = Outfit("dress", skirt_length="Knee", sleeve_length="Short", neckline_design="Round")
CHOICES = {
    "sleeve_length": ("Sleeveless", "Short", "Elbow", "Wrist", "Long"),
    "skirt_length": ("Short", "Knee", "Midi", "Floor"),
    "neckline_design": ("Round", "V", "Square"),
}


def live_explorer(
    model: RetrievalModel,
    gallery: AttributeTable,
    *,
    outfit: Outfit = DRESS,
    choices: Mapping[str, Sequence[str]] = CHOICES,
    n_gallery: int = 40,
    top: int = 6,
) -> Explorer:
    """The network itself in the page, for a garment that the reader alters, or a photo.

    Args:
        model: has attention; it is exported without its classification branch.
        gallery: labelled images; its first `n_gallery` are searched.
        outfit: what is drawn.
        choices: for some attributes of the outfit, the values to be drawn; all combinations are.
        n_gallery: images to search.
        top: nearest images to show.

    Raises:
        InputError: a model without attention, or an empty gallery.
    """
    _refuse_nothing([model], gallery)
    images = np.unique(gallery.image)[:n_gallery]
    size, attributes = model.preprocessing.size, range(len(gallery.schema))
    with torch.no_grad():
        shown = model.eval()(
            prepare(model, gallery.images.load(images, size)), model.all_attributes(len(images))
        )
    if shown.attention is None:
        raise InputError("The live explorer shows attention; give a model that has it.")
    data = {
        "model": _base64(_onnx(model)),
        "size": size,
        "attributes": gallery.schema.names,
        "choices": [{"name": name, "values": values} for name, values in choices.items()],
        "drawings": [_lossless(picture) for picture in drawings(outfit, choices, size)],
        "gallery": {
            "pictures": _pictures(gallery, images, 56),
            "values": [[_value(gallery, int(i), a) for a in attributes] for i in images],
            "embeddings": _base64(shown.embedding.numpy().astype("<f4").tobytes()),
        },
        "top": top,
    }
    return _explorer("The network in the page", ("live.js",), data)


def drawings(outfit: Outfit, choices: Mapping[str, Sequence[str]], size: int) -> list[Image.Image]:
    """The outfit with every combination of the values, the last attribute changing fastest."""
    combinations = itertools.product(*choices.values())
    variants: list[dict[str, Any]] = [dict(zip(choices, values)) for values in combinations]
    return [draw(replace(outfit, **variant), size)[0] for variant in variants]


def _value(table: AttributeTable, image: int, attribute: int) -> str | None:
    """The values of an image, as words; None if it has none, for then it is not searched."""
    there = bool(((table.image == image) & (table.attribute == attribute)).any())
    return _labels(table, image, attribute) if there else None


def _onnx(model: RetrievalModel) -> bytes:
    """The exported model; nothing where, as on Colab, ONNX is not installed: the page says so."""
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        return b""
    with tempfile.TemporaryDirectory() as folder:
        export(model, Path(folder) / "model.onnx")
        return (Path(folder) / "model.onnx").read_bytes()


def _lossless(picture: Image.Image) -> str:
    """A data address whose pixels are exactly the picture's, so that the network sees the same."""
    file = io.BytesIO()
    picture.save(file, "WEBP", lossless=True, method=6)
    return f"data:image/webp;base64,{_base64(file.getvalue())}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

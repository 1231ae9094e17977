"""Models as files that run without this package: ONNX, or PyTorch's own exported programs.

An exported model takes the images as they are, so that nobody has to know its preprocessing:
`images`, uint8 of shape (batch, 3, size, size), RGB, and `attributes`, int64 ids of shape
(batch, asked). It answers `embeddings` (batch, asked, D), for a model with attention `attention`
(batch, asked, H, W), and, where the classification branch is kept, `logits`. Both `batch` and
`asked` are free; `size` is that of the model's preprocessing.
"""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agman.embedding import fingerprint
from agman.errors import InputError
from agman.models import RetrievalModel
from agman.storage import replacing

TOLERANCE = 1e-4
"""The most that a number of an exported model may differ from PyTorch's."""

NAMES = ("embeddings", "attention", "logits")  # "embedding" is a name that ONNX graphs use inside

Answers = Callable[[Tensor, Tensor], list[Tensor]]


def export(model: RetrievalModel, path: str | Path, *, classification: bool = False) -> float:
    """Write a model as one file, after a check that it answers as the model does.

    Args:
        model: it is left as it is, and exported in evaluation mode.
        path: ends with `.onnx`, or with `.pt2` for `torch.export.load`.
        classification: keep AG-MAN's classification branch, which retrieval does not use.

    Returns:
        The largest difference to PyTorch that the check found, at most `TOLERANCE`.

    Raises:
        InputError: another ending, a package that is missing, a file that cannot be written, or
            a model that cannot be exported or answers otherwise afterwards; then no file is
            written and an older one is left as it was.
    """
    kind = Path(path).suffix
    if kind not in (".onnx", ".pt2"):
        raise InputError(
            f"{path}: the file's name says how to export; end it with .onnx, or with .pt2 for "
            "torch.export."
        )
    if kind == ".onnx":
        _import_onnx()
    network = Exportable(model, classification)
    with _silence():
        try:
            content = (_to_onnx if kind == ".onnx" else _to_program)(network)
            answers = (_onnx_answers if kind == ".onnx" else _program_answers)(content)
            difference = largest_difference(network, answers)
        except Exception as error:  # torch's exporter fails in any way
            reason = str(error).strip().splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{path} could not be made, for torch cannot export this {model.name} model "
                f"({reason}); try the other of .onnx and .pt2."
            ) from error
    if not difference <= TOLERANCE:
        raise InputError(
            f"{path} was not written, for its numbers differ from PyTorch's by {difference:.1e}; "
            "try the other of .onnx and .pt2."
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return difference


class Exportable(nn.Module):
    """A model from the bytes of the images to named answers, and nothing that only training needs.

    Args:
        model: copied, in evaluation mode, onto the CPU.
        classification: whether the copy keeps AG-MAN's classification branch.
    """

    def __init__(self, model: RetrievalModel, classification: bool = False) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().eval().requires_grad_(False)
        self.about = {
            "model": model.name,
            "fingerprint": fingerprint(model),
            "schema": None if model.schema is None else model.schema.to_dict(),
        }
        if not classification and hasattr(self.model, "classifier"):
            setattr(self.model, "classifier", None)  # noqa: B010
        # Not those of a copied image: 2 and 3 are numbers that the exporter takes for free ones.
        self.example = self.inputs(2, 3)
        found = zip(NAMES, self._all(*self.example), strict=True)
        self.names = [name for name, answer in found if answer is not None]

    def inputs(self, batch: int, asked: int) -> tuple[Tensor, Tensor]:
        """Random images (batch, 3, size, size) and ids (batch, asked), always the same."""
        random = torch.Generator().manual_seed(0)
        size = self.model.preprocessing.size
        images = torch.randint(0, 256, (batch, 3, size, size), generator=random)
        ids = torch.arange(batch * asked).view(batch, asked) % self.model.n_attributes
        return images.to(torch.uint8), ids

    def forward(self, images: Tensor, attributes: Tensor) -> tuple[Tensor, ...]:
        """The answers that this model has, in the order of `names`.

        Args:
            images: (B, 3, size, size) uint8.
            attributes: (B, K) ids, which nobody checks here.
        """
        return tuple(answer for answer in self._all(images, attributes) if answer is not None)

    def _all(self, images: Tensor, attributes: Tensor) -> tuple[Tensor | None, ...]:
        """As `RetrievalModel.forward`, without its look at the ids, which no graph can hold."""
        taps = self.model.backbone(self.model.preprocessing(images), self.model.levels)
        vectors, attention, logits = self.model.embed(taps, attributes)
        return self.model.normalize(vectors), attention, logits


@torch.no_grad()
def largest_difference(network: Exportable, answers: Answers) -> float:
    """Between the answers of a model and those of its export, for several shapes of the question.

    Returns:
        The largest absolute difference of any number; infinite if a shape differs.
    """
    worst = 0.0
    for batch, asked in ((1, 1), (3, network.model.n_attributes)):
        images, attributes = network.inputs(batch, asked)
        # The model's own way, not the one that was exported.
        expected = network.model(network.model.preprocessing(images), attributes)
        there = [answer for answer in expected if answer is not None]
        for answer, wanted in zip(answers(images, attributes), there, strict=True):
            if answer.shape != wanted.shape:
                return float("inf")
            worst = max(worst, float((answer - wanted).abs().nan_to_num(nan=torch.inf).max()))
    return worst


def _program(network: Exportable) -> Any:
    """The graph, with the number of images and of attributes asked left free."""
    return torch.export.export(network, network.example, dynamic_shapes=_free())


def _free() -> tuple[dict[int, Any], ...]:
    batch, asked = torch.export.Dim("batch"), torch.export.Dim("asked")
    return {0: batch}, {0: batch, 1: asked}


def _to_program(network: Exportable) -> bytes:
    file = io.BytesIO()
    extra = {"agman.json": json.dumps(network.about)}
    torch.export.save(_program(network), file, extra_files=extra)
    return file.getvalue()


def _program_answers(content: bytes) -> Answers:
    program = torch.export.load(io.BytesIO(content)).module()
    return lambda images, attributes: list(program(images, attributes))


def _to_onnx(network: Exportable) -> bytes:
    made = torch.onnx.export(
        _program(network),
        input_names=["images", "attributes"],
        output_names=network.names,
        dynamic_shapes=_free(),  # for their names only
        verbose=False,
    )
    proto = made.model_proto  # type: ignore[union-attr]
    entry = proto.metadata_props.add()
    entry.key, entry.value = "agman", json.dumps(network.about)
    return proto.SerializeToString()


def _onnx_answers(content: bytes) -> Answers:
    """By onnxruntime, or, where it is not installed, by ONNX's own slow evaluator."""
    try:
        import onnxruntime
    except ImportError:
        from onnx import load_from_string
        from onnx.reference import ReferenceEvaluator

        session: Any = ReferenceEvaluator(load_from_string(content))
    else:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def answers(images: Tensor, attributes: Tensor) -> list[Tensor]:
        given = {"images": images.numpy(), "attributes": attributes.numpy()}
        return [torch.from_numpy(answer) for answer in session.run(None, given)]

    return answers


def _import_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise InputError(
            'Export to ONNX needs the packages onnx and onnxscript: pip install "agman[export]".'
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Without the exporter's remarks on its own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before):
                logger.setLevel(level)

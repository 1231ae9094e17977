"""Exported models answer as PyTorch does, whatever the shape of the question."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import agman
from agman import cli, export
from agman.errors import InputError
from agman.models import AGMAN, RetrievalModel
from tests import tiny


def model(name: str = "agman", **options: object) -> RetrievalModel:
    """A small model with numbers in its batch norms, as after training."""
    torch.manual_seed(0)
    made = agman.create_model(name, n_attributes=3, backbone="lab", **options)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return made


def opened(path: Path) -> Callable[[Tensor, Tensor], list[Tensor]]:
    """The file in a program that knows nothing of ours."""
    if path.suffix == ".pt2":
        program = torch.export.load(path).module()
        return lambda images, ids: list(program(images, ids))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [(i.name, i.type) for i in session.get_inputs()] == [
        ("images", "tensor(uint8)"),
        ("attributes", "tensor(int64)"),
    ]

    def run(images: Tensor, ids: Tensor) -> list[Tensor]:
        given = {"images": images.numpy(), "attributes": ids.numpy()}
        return [torch.from_numpy(answer) for answer in session.run(None, given)]

    return run


def answers(path: Path, images: Tensor, ids: Tensor) -> list[Tensor]:
    """Those of the file to one question."""
    return opened(path)(images, ids)


def question(batch: int, asked: int, size: int = 96) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(batch)
    images = torch.randint(0, 256, (batch, 3, size, size), generator=random).to(torch.uint8)
    return images, torch.randint(0, 3, (batch, asked), generator=random)


CASES = {
    "agman": {},
    "agman_released": {"released": True},
    "agman_top_level": {"levels": (3,), "spatial_gate": False, "classification": False},
    "asenet_v2": {},
    "asenet": {},
    "triplet": {},
}


@pytest.mark.parametrize(
    ("case", "ending"),
    [
        *((case, "onnx") for case in CASES),
        *((case, "pt2") for case in ("agman_released", "asenet")),
    ],
)
def test_answers_are_those_of_pytorch(case: str, ending: str, tmp_path: Path) -> None:
    name = "agman" if case.startswith("agman") else case
    ours = model(name, **CASES[case])
    path = tmp_path / f"m.{ending}"
    assert export.export(ours, path, classification=True) <= export.TOLERANCE
    ours.eval()
    ask = opened(path)
    for batch, asked in ((1, 1), (2, 3), (5, 2), (1, 7)):
        images, ids = question(batch, asked)
        with torch.no_grad():
            wanted = [x for x in ours(ours.preprocessing(images), ids) if x is not None]
        given = ask(images, ids)
        assert len(given) == len(wanted)
        for mine, theirs in zip(wanted, given, strict=True):
            assert theirs.shape == mine.shape
            assert float((mine - theirs).abs().max()) <= 1e-4


def test_another_attribute_gives_another_answer(tmp_path: Path) -> None:
    """The ids are an input, not a constant of the example that was traced."""
    export.export(model(), tmp_path / "m.onnx")
    images, _ = question(1, 1)
    embeddings, attention = answers(tmp_path / "m.onnx", images, torch.tensor([[0, 1, 2]]))
    for answer in (embeddings, attention):
        assert not torch.allclose(answer[0, 0], answer[0, 1], rtol=0.01)
        assert not torch.allclose(answer[0, 1], answer[0, 2], rtol=0.01)
    swapped, _ = answers(tmp_path / "m.onnx", images, torch.tensor([[2, 1, 0]]))
    assert torch.allclose(swapped.flip(1), embeddings, atol=1e-6)


def test_retrieval_alone_leaves_the_classification_branch_out(tmp_path: Path) -> None:
    ours = model()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    small, large = tmp_path / "small.pt2", tmp_path / "large.pt2"
    export.export(ours, small)
    export.export(ours, large, classification=True)
    branch = 4 * sum(p.numel() for p in ours.classifier.parameters())  # type: ignore[union-attr]
    assert branch > 0.5 * large.stat().st_size, "the branch is most of this network"
    assert large.stat().st_size - small.stat().st_size == pytest.approx(branch, rel=0.1)
    images, ids = question(2, 2)
    few, all_of_them = answers(small, images, ids), answers(large, images, ids)
    assert (len(few), len(all_of_them)) == (2, 3)
    assert torch.allclose(few[0], all_of_them[0], atol=1e-6)
    assert ours.training, "the model is left as it was"
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())
    assert isinstance(ours, AGMAN)
    assert ours.classifier is not None


def test_an_onnx_file_says_what_it_is(tmp_path: Path) -> None:
    ours = model()
    ours.schema = agman.AttributeSchema(
        ("color", "place", "size"), (("red", "blue"), ("left",), ("small", "large")), "three"
    )
    export.export(ours, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto, full_check=True)
    about = json.loads(next(p.value for p in proto.metadata_props if p.key == "agman"))
    assert about["model"] == "agman"
    assert about["schema"]["name"] == "three"
    assert [output.name for output in proto.graph.output] == ["embeddings", "attention"]
    shapes = [
        [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim]
        for i in proto.graph.input
    ]
    assert shapes == [["batch", 3, 96, 96], ["batch", "asked"]]


def test_onnx_refuses_an_attribute_that_is_not_there(tmp_path: Path) -> None:
    export.export(model(), tmp_path / "m.onnx")
    images, _ = question(1, 1)
    with pytest.raises(Exception, match="out of data bounds"):
        answers(tmp_path / "m.onnx", images, torch.tensor([[3]]))


def test_a_wrong_export_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is real: an export that adds a little to each number is found out."""
    path = tmp_path / "m.pt2"
    path.write_bytes(b"an older one")

    def slightly_off(self: nn.Module, images: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        return tuple(x + 2e-4 for x in self._all(images, ids) if x is not None)

    monkeypatch.setattr(export.Exportable, "forward", slightly_off)
    with pytest.raises(InputError, match="differ from PyTorch's by 2"):
        export.export(model(), path)
    assert path.read_bytes() == b"an older one"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_without_onnxruntime_onnx_checks_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export.export(model("csn"), tmp_path / "m.onnx") <= export.TOLERANCE


def test_another_ending_is_refused(tmp_path: Path) -> None:
    for path in ("m.pt", tmp_path):
        with pytest.raises(InputError, match=r"end it with \.onnx"):
            export.export(model(), path)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"pip install \"agman\[export\]\""):
        export.export(model(), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_exported_gives_one_sentence(tmp_path: Path) -> None:
    ours = model("triplet")

    class Moody(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            return features if float(features.mean()) > 0 else -features

    ours.project = nn.Sequential(ours.project, Moody())  # type: ignore[assignment]
    with pytest.raises(InputError, match=r"cannot export this triplet model \([^\n]+\); try"):
        export.export(ours, tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_an_export_of_another_shape_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_only(self: nn.Module, images: Tensor, ids: Tensor) -> tuple[Tensor, ...]:
        return tuple(x[:, :1] for x in self._all(images, ids) if x is not None)

    monkeypatch.setattr(export.Exportable, "forward", first_only)
    with pytest.raises(InputError, match="differ from PyTorch's by inf"):
        export.export(model("csn"), tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_photos_that_the_network_cannot_see_are_no_fault_of_the_format(tmp_path: Path) -> None:
    tiny_photos = model("csn")
    tiny_photos.preprocessing = replace(tiny_photos.preprocessing, size=8)
    with pytest.raises(InputError, match=r"^Images of 8 x 8 pixels are too small"):
        export.export(tiny_photos, tmp_path / "m.pt2")


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_what_photographs_can_be_searched_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shipped model, by its name, on pictures as any program would read them."""
    out = tmp_path / "lab.onnx"
    assert cli.main(["export", "--weights", "lab/agman", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "96 x 96 pixels" in said.out
    assert "0 skirt_length" in said.out
    shipped = agman.load("lab/agman")
    pixels = tiny.table(4, 96).images.load(np.arange(4), 96)
    ids = torch.arange(8).expand(4, -1)
    with torch.no_grad():
        expected = shipped(shipped.preprocessing(pixels), ids)
    embeddings, attention = answers(out, pixels, ids.contiguous())
    assert torch.allclose(embeddings, expected.embedding, atol=1e-4)
    assert torch.allclose(attention, expected.attention, atol=1e-4)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--weights", "lab/agman", "--out", "m.txt"), "end it with .onnx"),
        (("--weights", "lab/none", "--out", "m.pt2"), "No model lab/none"),
        (
            (
                "--weights",
                "lab/agman",
            ),
            "--out",
        ),
        (("--weights", "lab/agman", "--out", "file/m.pt2"), "could not be written"),
    ],
)
def test_a_typo_gives_one_sentence_and_no_file(
    words: tuple[str, ...],
    part: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way of a folder")
    assert cli.main(["export", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert part in said.err
    assert said.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]

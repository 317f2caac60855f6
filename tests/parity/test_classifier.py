"""Our backbones as classifiers against torchvision's Swin Transformer and ResNet: logits, loss and
gradients.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.networks import randomize
from torch import nn
from torchvision.models import SwinTransformer
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.transforms.v2 import Normalize

from nas.models.backbones import build_backbone
from nas.models.classifier import Classifier
from nas.models.weights import load_backbone_weights
from search_spaces.layout import Layout

CLASSES = 7


def swin() -> nn.Module:
    return SwinTransformer(
        [4, 4],
        16,
        [1, 1, 2, 1],
        [1, 1, 2, 4],
        [7, 7],
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    )


def resnet() -> nn.Module:
    return ResNet(Bottleneck, [1, 1, 2, 1], num_classes=CLASSES)


@pytest.mark.parametrize(
    ("make", "layout", "head", "stem"),
    [
        (swin, "T1-T1-T2-T1@16", "head", "features.0.0.weight"),
        (resnet, "C1-C1-C2-C1@256", "fc", "conv1.weight"),
    ],
)
def test_equal_weights_give_equal_classifiers(
    tmp_path: Path, make: object, layout: str, head: str, stem: str
):
    theirs = make()
    with torch.no_grad():
        randomize(theirs)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pt")
    ours = Classifier(build_backbone(Layout.parse(layout)), CLASSES, label_smoothing=0.1)
    report = load_backbone_weights(ours.backbone, tmp_path / "theirs.pt")
    assert {name.split(".")[0] for name in report.missing} <= {"norms"}
    ours.head.load_state_dict(theirs.get_submodule(head).state_dict())

    images, labels = torch.rand(3, 3, 96, 64), torch.tensor([2, 0, 6])
    normalised = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(images)
    with torch.no_grad():
        assert torch.allclose(ours.eval()(images), theirs.eval()(normalised), atol=1e-4)
    loss = ours.train()(images, labels)["cross_entropy"]
    expected = F.cross_entropy(theirs.train()(normalised), labels, label_smoothing=0.1)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    loss.backward()
    expected.backward()
    gradient = theirs.get_parameter(stem).grad
    assert torch.allclose(
        ours.backbone.stem.conv.weight.grad, gradient, atol=1e-4 * gradient.abs().max().item()
    )

"""A backbone as a classifier: its loss, its figures, what of the backbone it trains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nas.data.classification_loader import ImageBatch
from nas.models.backbones import build_backbone
from nas.models.classifier import Classifier, top_k
from nas.training.pretraining import score
from search_spaces.layout import Layout

CPU = torch.device("cpu")


def classifier(
    layout: str = "C1-T1-T1-T1@16", classes: int = 4, smoothing: float = 0.0
) -> Classifier:
    torch.manual_seed(0)
    return Classifier(build_backbone(Layout.parse(layout)), classes, smoothing)


def test_loss_is_cross_entropy_with_smoothed_targets():
    """The head's weights at 0, the logits are its bias: the loss is a sum of three terms."""
    network = classifier(classes=3, smoothing=0.3)
    bias = torch.tensor([1.0, -0.5, 0.25])
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.bias.copy_(bias)
    log_p = [
        value - math.log(sum(math.exp(other) for other in bias.tolist())) for value in bias.tolist()
    ]
    images = torch.rand(2, 3, 32, 32)
    expected = (
        -(0.8 * (log_p[0] + log_p[2]) + 0.1 * (log_p[1] + log_p[2]) + 0.1 * (log_p[0] + log_p[1]))
        / 2
    )
    assert network(images, torch.tensor([0, 2]))["cross_entropy"].item() == pytest.approx(
        expected, rel=1e-5
    )
    shares = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])
    first = -((0.7 * 0.75 + 0.1) * log_p[0] + (0.7 * 0.25 + 0.1) * log_p[1] + 0.1 * log_p[2])
    second = -(0.1 * log_p[0] + 0.1 * log_p[1] + 0.8 * log_p[2])
    assert network(images, shares)["cross_entropy"].item() == pytest.approx(
        (first + second) / 2, rel=1e-5
    )


@pytest.mark.parametrize(("classes", "k"), [(12, 1), (12, 5), (3, 5), (5, 5)])
def test_top_k_counts_as_sorting_does(classes: int, k: int):
    generator = torch.Generator().manual_seed(classes)
    logits, labels = (
        torch.randn(50, classes, generator=generator),
        torch.randint(classes, (50,), generator=generator),
    )
    slow = 0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        slow += label in sorted(range(classes), key=lambda index: row[index], reverse=True)[:k]
    assert top_k(logits, labels, k).item() == slow


class Fixed(nn.Module):
    """Knows the answers: logits are the first values of each image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        return images.flatten(1)[:, :8]


def test_the_score_of_batches_of_unequal_size_is_that_of_all_images():
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (23, 3, 4, 4), dtype=torch.uint8, generator=generator)
    labels = torch.randint(8, (23,), generator=generator)
    batches = [
        ImageBatch(pixels[start : start + 6], labels[start : start + 6], 8)
        for start in range(0, 23, 6)
    ]
    network = Fixed()
    metrics = score(network, batches, CPU)
    assert network.training
    logits = pixels.flatten(1)[:, :8].double() / 255
    ranks = (logits > logits.gather(1, labels[:, None])).sum(dim=1)
    losses = [
        -(row - row.exp().sum().log())[label] for row, label in zip(logits, labels, strict=True)
    ]
    assert metrics.top1 == pytest.approx(
        (ranks < 1).double().mean().item(), abs=0.05
    )  # equal pixels are ties
    assert metrics.top5 == pytest.approx((ranks < 5).double().mean().item(), abs=0.05)
    assert metrics.val_loss == pytest.approx(sum(losses).item() / 23, rel=1e-5)


@pytest.mark.parametrize(
    ("layout", "trained"), [("C1-T1-T1-T1@16", True), ("T1-T1-T1-C1@16", False)]
)
def test_of_the_output_norms_only_the_last_is_trained(layout: str, trained: bool):
    network = classifier(layout)
    network(torch.rand(2, 3, 64, 64), torch.tensor([0, 3]))["cross_entropy"].backward()
    norms = {name for name, _ in network.backbone.named_parameters() if name.startswith("norms.")}
    got = {
        name
        for name, parameter in network.backbone.named_parameters()
        if parameter.grad is not None
    }
    assert norms & got == ({"norms.3.weight", "norms.3.bias"} if trained else set())
    assert {name for name, _ in network.backbone.named_parameters()} - norms <= got

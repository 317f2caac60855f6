"""Parameters and multiply-adds of RepPoints v2, part by part by hand, against Swin's detection
figures and against the count.

The published figures (42M and 274G with ResNet-50, 45M and 283G with Swin-T at 800 x 1280, Table 5
of the paper) are those of Swin's configuration: two layers of a bidirectional pyramid instead of
the feature pyramid of Chen et al. 2020.
"""

from __future__ import annotations

import pytest

from nas.config.sections import DetectorSpec
from nas.profiling.flops import count_cost
from search_spaces.layout import Layout

CLASSES = 80
PLACES = [100 * 160, 50 * 80, 25 * 40, 13 * 20, 7 * 10]  # of the five levels
ALL = sum(PLACES)
# products of Swin-T, which the printed figure has and the paper's rule leaves out (ATSS shows the
# same)
ATTENTION_G = 3.109


class Part:
    """Parameters, and operations by the paper's rule: biases, 2 an element of a norm, 1 of a
    ReLU.
    """

    def __init__(self) -> None:
        self.params = self.flops = 0

    def convolution(
        self, in_width: int, width: int, kernel: int, places: int = ALL, *, bias: bool = False
    ) -> Part:
        self.params += in_width * width * kernel**2 + bias * width
        self.flops += places * (in_width * width * kernel**2 + bias * width)
        return self

    def norm(self, width: int = 256, places: int = ALL, *, relu: bool = True) -> Part:
        self.params += 2 * width
        self.flops += places * width * (2 + relu)
        return self

    def relu(self) -> Part:
        self.flops += ALL * 256
        return self

    def samples(self, width: int) -> Part:
        """Bilinear interpolation at nine points of every location: 4 multiply-adds a value."""
        self.flops += 4 * ALL * 9 * width
        return self


def parts(widths: tuple[int, int, int]) -> dict[str, Part]:
    neck, towers, corners, fusion, points, deformable = (Part() for _ in range(6))
    for width, places in zip([*widths, widths[-1], widths[-1]], PLACES, strict=True):
        neck.convolution(width, 256, 1, places).norm(places=places, relu=False)
    for _ in range(2):
        for places in PLACES[:4] + PLACES[1:]:  # down, then up
            neck.convolution(256, 256, 3, places).norm(places=places, relu=False)
        neck.params += 4 * 2 + 3 * 3 + 2  # fusion weights
    for _ in range(3 + 3 + 1):
        towers.convolution(256, 256, 3).norm()
    for _ in range(2):
        for _ in range(2):
            corners.convolution(256, 64, 3).norm(64)
        corners.convolution(64, 256, 3).norm(relu=False).convolution(256, 256, 1).norm(
            relu=False
        ).relu()
        corners.convolution(256, 256, 1).norm()
        corners.convolution(256, 1, 3, bias=True).convolution(256, 2, 3, bias=True)
    fusion.convolution(256, CLASSES, 1, bias=True).convolution(256, 256, 1).norm()
    points.convolution(256, 256, 3, bias=True).relu().convolution(256, 18, 1, bias=True)
    points.params += 2  # of the moment transform
    for outputs in (CLASSES, 18):
        deformable.convolution(256 + 6, 256, 3).samples(256 + 6).relu().convolution(
            256, outputs, 1, bias=True
        )
    named = {
        "neck": neck,
        "towers": towers,
        "corners": corners,
        "foreground": fusion,
        "initial points": points,
    }
    return {**named, "deformable": deformable}


@pytest.mark.parametrize(
    ("text", "backbone", "widths", "printed"),
    [
        ("C3-C4-C6-C3@256", (23_508_032, 84_077_056_000), (512, 1024, 2048), (42, 274)),
        ("T2-T2-T6-T2", (27_520_698, 92_637_720_576), (192, 384, 768), (45, 283)),
    ],
)
def test_published_counts(
    text: str, backbone: tuple[int, int], widths: tuple[int, int, int], printed: tuple[int, int]
):
    cost = count_cost(Layout.parse(text), DetectorSpec(name="reppoints_v2"), CLASSES, (800, 1280))
    found = parts(widths).values()
    assert cost.params == backbone[0] + sum(part.params for part in found)
    assert cost.paper_flops == backbone[1] + sum(part.flops for part in found)
    attention_g = ATTENTION_G if text.startswith("T") else 0
    assert (round(cost.params / 1e6), round(cost.paper_flops / 1e9 + attention_g)) == printed
    assert round(cost.flops / 1e9) == printed[1]  # by fvcore's rule as well


def test_the_corner_transform_has_no_parameters():
    costs = [
        count_cost(
            Layout.parse("T2-T2-T6-T2"),
            DetectorSpec(name="reppoints_v2", box_transform=name),
            CLASSES,
            (800, 1280),
        )
        for name in ("moment", "corners")
    ]
    assert costs[0].params - costs[1].params == 2
    assert costs[0].flops == costs[1].flops


def test_with_a_plain_feature_pyramid():
    """The networks of Chen et al. 2020: laterals and 3x3 convolutions with biases, two stride-2
    convolutions on the output.
    """
    cost = count_cost(
        Layout.parse("C3-C4-C6-C3@256"),
        DetectorSpec(name="reppoints_v2", neck="fpn"),
        CLASSES,
        (800, 1280),
    )
    pyramid = sum((width + 1) * 256 for width in (512, 1024, 2048)) + 5 * (9 * 256 + 1) * 256
    head = sum(part.params for name, part in parts((512, 1024, 2048)).items() if name != "neck")
    assert cost.params == 23_508_032 + pyramid + head

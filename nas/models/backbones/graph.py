"""The wiring of a backbone: which module gets what from which, and how long it is kept.

The one description that the forward pass, the memory estimate, the FLOP count and the ONNX export
follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

IMAGES = "images"  # the value that a backbone is given


class Node(NamedTuple):
    """One step of a backbone's forward pass, and the value that it gives.

    Args:
        name: of the value: `stem`, and for each stage i from 1 `stage_i`, `stage_i/norm` and, in a
            dense backbone, `stage_i/join`.
        kind: `stem`; `stage`; `norm`, the output norm of a T stage, of a C stage the identity, and
            its value is a feature map that leaves the backbone; `join`, see
            `DenseJoin`.
        stage: index of the stage that it belongs to, from 0; 0 for the stem.
        inputs: names of the values it takes, in the order of its arguments.
        in_widths: channels of each input.
        width: channels of its value.
        stride: how many times smaller its value is than its first input.
        releases: names of the values that nothing needs once it has run.
    """

    name: str
    kind: Literal["stem", "stage", "norm", "join"]
    stage: int
    inputs: tuple[str, ...]
    in_widths: tuple[int, ...]
    width: int
    stride: int = 1
    releases: tuple[str, ...] = ()


def backbone_graph(
    widths: Sequence[int], stem_width: int, *, dense: bool = False
) -> tuple[Node, ...]:
    """The steps of a backbone's forward pass, in order.

    Args:
        widths: output channels of each stage.
        stem_width: channels behind the stem.
        dense: stages from the third on are given the outputs of all stages before them.
    """
    source = Node("stem", "stem", 0, (IMAGES,), (3,), stem_width, 4)
    nodes = [source]
    for index, width in enumerate(widths):
        name, stride = f"stage_{index + 1}", 2 if index else 1
        joined, last = dense and index > 0, index == len(widths) - 1
        inputs, in_widths = (source.name,), (source.width,)
        spent = () if joined else inputs
        nodes.append(Node(name, "stage", index, inputs, in_widths, width, stride, spent))
        spent = (name, *(inputs if joined else ())) if last else ()
        nodes.append(Node(f"{name}/norm", "norm", index, (name,), (width,), width, 1, spent))
        if joined and not last:
            both = (name, source.name)
            nodes.append(
                Node(
                    f"{name}/join",
                    "join",
                    index,
                    inputs=both,
                    in_widths=(width, source.width),
                    width=width + source.width,
                    releases=both,
                )
            )
        source = nodes[-1] if joined else nodes[-2]
    return tuple(nodes)

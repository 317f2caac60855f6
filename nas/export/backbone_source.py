"""`backbone.py`: the backbone's own source, gathered from `nas.models.backbones` into one file that
needs torch and torchvision only.
"""

from __future__ import annotations

import ast
from pathlib import Path
from pprint import pformat

import nas.models.backbones
from nas.models.backbones import backbone_dims
from search_spaces.layout import Layout

MODULES = (
    "stems",
    "resnet_stage",
    "swin_stage",
    "graph",
    "hybrid",
    "feature_info",
)  # each needs only those before it

_HEADER = '''"""The backbone {layout}, four feature maps at strides 4, 8, 16 and 32. Needs torch and torchvision only.

    from backbone import load_backbone

    backbone = load_backbone("backbone.safetensors").eval()
    maps = backbone(images)  # images [B, 3, H, W], normalised; maps {widths} channels wide

`load_features` gives chosen maps and a `feature_info` as timm's `features_only` does; `NamedFeatures` is what torchvision's
`BackboneWithFPN` takes as its `body`.

Written by scratch-nas {version}, Apache-2.0.
"""
'''

_FOOTER = '''

DIMENSIONS = {dimensions}


def build_backbone() -> HybridBackbone:
    """The network without its weights."""
    return HybridBackbone(**DIMENSIONS)


def load_backbone(weights: str) -> HybridBackbone:
    """The network with the weights of a safetensors file."""
    from safetensors.torch import load_file

    backbone = build_backbone()
    backbone.load_state_dict(load_file(weights))
    return backbone


def load_features(weights: str, out_indices: Sequence[int] = (0, 1, 2, 3)) -> BackboneFeatures:
    """The same with timm's interface: `features_only=True, out_indices=...`."""
    return BackboneFeatures(load_backbone(weights), out_indices)
'''


def backbone_source(layout: Layout) -> str:
    """Text of a Python module that builds the backbone of a layout and needs torch and torchvision
    only.
    """
    folder = Path(nas.models.backbones.__file__).parent
    imports: list[str] = []
    bodies: list[str] = []
    for name in MODULES:
        text = (folder / f"{name}.py").read_text()
        found, body = _split(text)
        imports += [line for line in found if line not in imports]
        bodies.append(body)
    widths = ", ".join(map(str, layout.widths))
    header = _HEADER.format(layout=layout, widths=widths, version=nas.__version__)
    dimensions = pformat(backbone_dims(layout), sort_dicts=False)
    future, others = (
        imports[0],
        sorted(imports[1:], key=lambda line: (not line.startswith("import "), line)),
    )
    return (
        "\n".join([header, future, "", *others])
        + "\n\n\n"
        + "\n\n\n".join(bodies)
        + "\n"
        + _FOOTER.format(dimensions=dimensions)
    )


def _split(text: str) -> tuple[list[str], str]:
    """A module's imports (those of this package left out, the one of the future first) and what
    comes after them.
    """
    tree, lines = ast.parse(text), text.splitlines()
    statements = tree.body[1:]  # the first is the docstring
    imports = [node for node in statements if isinstance(node, (ast.Import, ast.ImportFrom))]
    foreign = [
        ast.unparse(node)
        for node in imports
        if not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nas"))
    ]
    start = max(node.end_lineno or 0 for node in imports)
    return foreign, "\n".join(lines[start:]).strip()

"""The two modules of a bundle that mmdetection imports: the backbone, and of the detector what a
configuration cannot say, with a reader of its weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pprint import pformat

import nas
from nas.export.description import Trained
from nas.export.mmdetection import overrides
from nas.export.mmdetection.names import mmdetection_names
from nas.export.mmdetection.weights import renamed
from nas.export.quoting import python_text

BACKBONE_MODULE = '''"""The backbone for mmdetection 3. PYTHONPATH must have this folder.

`mmdet_config.py` imports this module.
"""

from backbone import BackboneFeatures, build_backbone
from mmengine.registry import MODELS


@MODELS.register_module()
class ScratchNasBackbone(BackboneFeatures):
    """`weights`: a safetensors file, or None to train from scratch; `out_indices`: the maps that
    the neck takes.
    """

    def __init__(self, weights=None, out_indices=(0, 1, 2, 3), init_cfg=None):
        super().__init__(build_backbone(), out_indices)
        if weights:
            from safetensors.torch import load_file

            self.backbone.load_state_dict(load_file(weights))

    def init_weights(self):
        """They are there, or PyTorch's own."""

    def forward(self, images):
        return tuple(super().forward(images))
'''

_HEADER = '''"""The detector for mmdetection 3: what a configuration cannot say, and its weights' names.

PYTHONPATH must have this folder; `mmdet_config.py` imports this module.

Written by scratch-nas {version}, Apache-2.0.
"""

from __future__ import annotations

{imports}'''

_LOADER = '''
CLASSES = {classes}
# Beginnings of the names in detector.safetensors, and mmdetection's in their place.
NAMES = {names}


{renamed}

@CheckpointLoader.register_scheme(r".*\\b(detector|last)\\.safetensors$", force=True)
def load_from_bundle(filename, map_location=None):
    """Read a bundle's weights as a checkpoint of mmengine, which calls this for such files."""
    weights = load_file(filename, device=str(map_location or "cpu"))
    meta = {{"dataset_meta": {{"classes": CLASSES}}}}
    return {{"state_dict": renamed(weights, NAMES), "meta": meta}}
'''
_LOADER_IMPORTS = """
from collections.abc import Mapping
from mmengine.runner import CheckpointLoader
from safetensors.torch import load_file
from torch import Tensor"""


def detector_module(trained: Trained) -> str:
    """Text of `mmdet_detector.py`: the parts of the detector that mmdetection lacks, and the reader
    of its weights where mmdetection has the detector.
    """
    names = mmdetection_names(trained.detector)
    parts = overrides.of_detector(trained.detector, known=bool(names))
    imports = [part.imports for part in parts] + ([_LOADER_IMPORTS] if names else [])
    loader = _LOADER.format(
        classes=classes_text(trained.categories),
        names=pformat(names, width=100, sort_dicts=False),
        renamed=inspect.getsource(renamed),
    )
    header = _HEADER.format(version=nas.__version__, imports=_import_lines(imports))
    codes = [part.code for part in parts] + ([loader] if names else [])
    return "\n\n\n".join([header, *(code.strip() for code in codes)]) + "\n"


def classes_text(names: Sequence[str]) -> str:
    """Write the names of classes as a tuple of Python."""
    return "(\n" + "".join(f"    {python_text(name)},\n" for name in names) + ")"


def _import_lines(texts: Sequence[str]) -> str:
    lines = {line for text in texts for line in text.split("\n") if line}
    return "\n".join(sorted(lines, key=lambda line: (not line.startswith("import "), line)))

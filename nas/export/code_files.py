"""The code of a bundle: what this version writes for a candidate."""

from __future__ import annotations

import nas
from nas.export.backbone_source import backbone_source
from nas.export.description import Trained
from nas.export.mmdetection.config import mmdetection_config
from nas.export.mmdetection.modules import BACKBONE_MODULE, detector_module
from nas.models.detectors.transform import ImageStatistics
from nas.study.provenance import git_commit

CODE_FILES = ("backbone.py", "mmdet_backbone.py", "mmdet_detector.py", "mmdet_config.py")


def code_files(trained: Trained, statistics: ImageStatistics) -> dict[str, str]:
    """Write the Python files of a bundle.

    Args:
        trained: the candidate.
        statistics: what its images are normalised by.

    Returns:
        Their texts, by their names: `CODE_FILES`.
    """
    return {
        "backbone.py": backbone_source(trained.layout),
        "mmdet_backbone.py": BACKBONE_MODULE,
        "mmdet_detector.py": detector_module(trained),
        "mmdet_config.py": mmdetection_config(trained, statistics),
    }


def writer() -> str:
    """Name the program that writes bundles: version, and commit where it runs from a checkout."""
    return " ".join(filter(None, (nas.__version__, git_commit())))

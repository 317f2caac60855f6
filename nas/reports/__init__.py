"""Results as they travel between the packages: frozen dataclasses with units in their names."""

from nas.reports.dataset import DatasetSummary
from nas.reports.memory import MemoryEstimate
from nas.reports.metrics import ClassificationMetrics, CocoMetrics
from nas.reports.training import CalibrationReport, EpochReport, PretrainingReport, Report

__all__ = [
    "CalibrationReport",
    "ClassificationMetrics",
    "CocoMetrics",
    "DatasetSummary",
    "EpochReport",
    "MemoryEstimate",
    "PretrainingReport",
    "Report",
]

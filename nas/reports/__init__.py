"""Results as they travel between the packages: frozen dataclasses with units in their names."""

from nas.reports.dataset import DatasetSummary
from nas.reports.memory import MemoryEstimate
from nas.reports.metrics import ClassificationMetrics, CocoMetrics
from nas.reports.training import (
    CalibrationReport,
    EpochReport,
    PretrainingReport,
    Report,
    calibration_warning,
)
from nas.reports.trials import BaselineRow, LeaderboardRow, SearchFindings, TrialRow

__all__ = [
    "BaselineRow",
    "CalibrationReport",
    "ClassificationMetrics",
    "CocoMetrics",
    "DatasetSummary",
    "EpochReport",
    "LeaderboardRow",
    "MemoryEstimate",
    "PretrainingReport",
    "Report",
    "SearchFindings",
    "TrialRow",
    "calibration_warning",
]

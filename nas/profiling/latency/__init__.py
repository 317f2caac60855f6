"""How long a backbone takes for one image: measured on a device, whole, and predicted for layouts
that nobody has built by the sum of the steps they consist of, each measured once.
"""

from nas.profiling.latency.meter import LatencyMeter
from nas.profiling.latency.targets import latency_target

__all__ = ["LatencyMeter", "latency_target"]

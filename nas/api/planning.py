"""The plan of a request, before anything is trained."""

from __future__ import annotations

from nas.config.spec import SearchSpec
from nas.data.splits import read_data
from nas.planning.adaptation import plan_of
from nas.planning.plan import Plan
from nas.utils.progress import CountProgress


def plan_request(spec: SearchSpec, on_image: CountProgress) -> Plan:
    """Read the data of a request and make its plan.

    Args:
        spec: the request; with `recipe: auto` the data decide what it leaves out.
        on_image: is told of every image that is checked.

    Raises:
        DataError: the data set cannot be read, or has faults that cannot be repaired.
    """
    splits, _ = read_data(spec.data, spec.recipe, on_image)
    return plan_of(spec, splits.train)

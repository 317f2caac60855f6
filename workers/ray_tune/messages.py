"""What a worker says of its trial, as one JSON string: Tune takes nested results apart."""

from __future__ import annotations

import json
from dataclasses import asdict

from nas.reports import EpochReport
from workers.backend import TrialEnd


def encode(message: EpochReport | TrialEnd) -> str:
    """Write a message as JSON: an object with one key, `report` or `end`."""
    kind = "report" if isinstance(message, EpochReport) else "end"
    return json.dumps({kind: asdict(message)})


def decode(text: str) -> EpochReport | TrialEnd:
    """Read what `encode` has written.

    Raises:
        KeyError: it is no such message.
    """
    content = json.loads(text)
    if "report" in content:
        return EpochReport.from_dict(content["report"])
    return TrialEnd(**content["end"])

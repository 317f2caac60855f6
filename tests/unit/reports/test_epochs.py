"""Reports of epochs: which weights are kept, and that their JSON is read back."""

from __future__ import annotations

import json
from dataclasses import asdict

from helpers.untrained import report

from nas.reports import EpochReport


def test_without_a_best_epoch_the_last_one_is_kept():
    first, last = report(0.3, 1), report(0.2, 2)
    assert (first.keeps, last.keeps) == (False, True)
    assert (first.kept_epoch, last.kept_epoch) == (1, 2)
    assert (first.kept, last.kept) == (first.metrics, last.metrics)
    converged = report(0.3, 1, converged=True)
    assert (converged.last, converged.keeps) == (True, True)


def test_with_one_it_is_the_best_so_far():
    first = report(0.3, 1, best=report(0.3, 1).metrics, best_epoch=1)
    second = report(0.2, 2, best=first.metrics, best_epoch=1)
    assert (first.keeps, second.keeps) == (True, False)
    assert second.last
    assert (second.kept, second.kept_epoch) == (first.metrics, 1)


def test_the_json_of_a_report_is_read_back():
    best, test = report(0.3, 1).metrics, report(0.1, 2).metrics
    for made in (report(0.2, 2), report(0.2, 2, best=best, best_epoch=1, test=test)):
        assert EpochReport.from_dict(json.loads(json.dumps(asdict(made)))) == made


def test_a_report_of_an_earlier_version_has_no_best_epoch():
    fields = asdict(report(0.2, 2))
    del fields["best"], fields["best_epoch"]
    assert EpochReport.from_dict(fields) == report(0.2, 2)

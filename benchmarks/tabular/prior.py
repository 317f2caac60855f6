"""Makes the prior that comes with the package, `search.prior: [builtin]`, from tables of trainings.

    python benchmarks/tabular/prior.py benchmarks/tabular/table-*.json

Of each layout of a table it has the multiply-adds and one score, in deviations of the table: that
which a search gives it at the end of its training, of mAP and training loss together, by their
means over the seeds. `tests/unit/search/test_prior.py` makes it again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.errors import UserError
from nas.search.multifidelity.curves import Curve, projected_scores
from nas.search.prior_studies import FILE
from workers.simulator.tabular_benchmark import RecordedRun, TabularBenchmark

PATH = Path(__file__).parents[2] / "nas/search" / FILE
RECIPE = ("name", "epochs", "image_size", "batch")  # that people ask for


def builtin(paths: Sequence[Path]) -> dict[str, Any]:
    """The content of the file: tables by name, each with where it comes from."""
    return {
        "command": "python benchmarks/tabular/prior.py benchmarks/tabular/table-*.json",
        "trained": "layout, multiply-adds of one image, score in deviations of the table",
        "studies": {
            path.stem.removeprefix("table-"): study(path.name, TabularBenchmark.read(path))
            for path in sorted(paths)
        },
    }


def study(name: str, table: TabularBenchmark) -> dict[str, Any]:
    """One table."""
    recipe, facts = table.request["recipe"], table.facts
    trained = {name: runs for name, runs in table.by_layout.items() if not failed(runs)}
    scores, _ = projected_scores([mean_curve(runs) for runs in trained.values()], recipe["epochs"])
    return {
        "table": name,
        "commit": table.about["commit"],
        "made": table.about["command"],
        "data": {"fingerprint": facts.fingerprint, "train_images": facts.train_images},
        "detector": table.request["detector"]["name"],
        "recipe": {key: recipe[key] for key in RECIPE},
        "seeds": statistics.fmean(map(len, trained.values())),
        "trained": [
            [layout, runs[0].flops, round(score, 3)]
            for (layout, runs), score in zip(trained.items(), scores.tolist(), strict=True)
        ],
    }


def failed(runs: Sequence[RecordedRun]) -> bool:
    """Whether a seed of a layout did not come to its end."""
    return any(run.fail_reason for run in runs)


def mean_curve(runs: Sequence[RecordedRun]) -> Curve:
    """Mean of a layout's trainings, epoch by epoch."""
    maps, losses = (
        {epoch: statistics.fmean(values) for epoch, values in enumerate(zip(*each, strict=True), 1)}
        for each in ([run.map for run in runs], [run.loss for run in runs])
    )
    return Curve(maps, losses, complete=True)


def text(content: dict[str, Any]) -> str:
    """JSON, one layout a line."""
    head = json.dumps(content, indent=1)
    return head.replace("[\n     ", "[").replace(",\n     ", ", ").replace("\n    ]", "]") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", type=Path, nargs="+")
    arguments = parser.parse_args()
    try:
        PATH.write_text(text(builtin(arguments.tables)))
    except UserError as error:
        parser.exit(2, f"error: {error}\n")
    print(f"{PATH.name}: {PATH.stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""`nas list` and `nas status`: what is in a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nas.cli import options
from nas.cli.runner import print_json, say
from nas.utils.formatting import percent

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial


def list_studies(
    storage: options.Storage = options.DEFAULT_STORAGE, as_json: options.Json = False
) -> None:
    """List the studies of a database."""
    from nas.study.optuna_internals import study_ids
    from nas.study.storage import open_storage

    opened = open_storage(storage, create=False)
    rows = [_summary(name, opened) for name in study_ids(opened)]
    if as_json:
        print_json(rows)
        return

    from nas.cli.tables import TextTable, print_table

    table = TextTable(title="Studies")
    for name in (
        "study",
        "space",
        "detector",
        "complete",
        "running",
        "failed",
        "asked",
        "best mAP",
        "best layout",
    ):
        table.add_column(name)
    for row in rows:
        cells = [
            row[name]
            for name in ("study", "space", "detector", "complete", "running", "failed", "trials")
        ]
        texts = ["-" if cell is None else str(cell) for cell in cells]  # of another program
        table.add_row(*texts, percent(row["map"]), str(row["layout"] or "-"))
    print_table(table)
    for row in rows:
        if row["unreadable"]:
            say(row["unreadable"])


def status(
    study: options.Study = None,
    storage: options.Storage = options.DEFAULT_STORAGE,
    as_json: options.Json = False,
) -> None:
    """Show every trial of a study."""
    from nas.search.forecast.actuals import cost_line
    from nas.study.attributes import study_attributes, study_trials
    from nas.study.leaderboard import load_study, trial_rows
    from nas.study.refusals import never_trained_text
    from nas.study.significance import against_baselines
    from nas.study.storage import open_storage

    loaded = load_study(open_storage(storage, create=False), study)
    known, trials = study_attributes(loaded), study_trials(loaded)
    rows = trial_rows(loaded, trials)
    baselines = against_baselines(known, trials)
    if as_json:
        print_json(
            {
                "study": loaded.study_name,
                **{name: value for name, value in known.items() if name.startswith("nas_")},
                "baselines": [row.to_dict() for row in baselines],
                "trials": [row.to_dict() for row in rows],
            }
        )
        return
    from nas.cli.tables import baselines_table, print_table, trials_table

    print_table(trials_table(rows, f"Study {loaded.study_name}"))
    if baselines:
        print_table(baselines_table(baselines))
    say(never_trained_text(known.get("nas_refusals", {})))
    if check := known.get("nas_proxy_check"):
        say(check["text"])
    if line := cost_line(known, trials):
        say(line)


def _summary(name: str, storage: RDBStorage) -> dict[str, Any]:
    """What a study is, as far as it can be read; one that cannot takes no other's line away."""
    import optuna

    from nas.errors import StudyError
    from nas.study.attributes import study_attributes, study_trials
    from nas.study.leaderboard import trial_rows
    from nas.study.optuna_internals import odd_rows_as_study_error

    spec: dict[str, Any] = {}
    trials: list[FrozenTrial] = []
    waiting: set[int] = set()
    unreadable = None
    try:
        with odd_rows_as_study_error(name):
            study = optuna.load_study(study_name=name, storage=storage)
            spec, trials = study_attributes(study).get("nas_spec", {}), study_trials(study)
            waiting = {row.number for row in trial_rows(study, trials) if row.state == "WAITING"}
    except StudyError as error:
        unreadable = str(error)
    return {"study": name, **_figures(spec, trials, waiting), "unreadable": unreadable}


def _figures(spec: dict[str, Any], trials: list[FrozenTrial], waiting: set[int]) -> dict[str, Any]:
    from collections import Counter

    from nas.study.leaderboard import ranked
    from nas.study.roles import BASELINE, CANDIDATE, REPLICATE, TAKEN_OVER, role_of

    states = Counter(
        "WAITING" if trial.number in waiting else trial.state.name
        for trial in trials
        if role_of(trial) == CANDIDATE
    )
    roles = Counter(map(role_of, trials))
    # The values of another program's study are no mAP.
    best = next(iter(ranked(trials)), None) if spec else None
    return {
        "space": spec.get("space", {}).get("name"),
        "detector": spec.get("detector", {}).get("name"),
        "trials": spec.get("search", {}).get("trials"),
        **{name.lower(): states[name] for name in ("COMPLETE", "PRUNED", "RUNNING", "WAITING")},
        "failed": states["FAIL"],
        "taken_over": roles[TAKEN_OVER],
        "baselines": roles[BASELINE],
        "replicates": roles[REPLICATE],
        "map": best.values[0] if best else None,
        "layout": best.user_attrs.get("layout") if best else None,
    }

"""What a search is and how far it got, in words."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dashboards.study_view import STATES, StudyView
from nas.search.forecast.actuals import cost_line
from nas.study.refusals import refused_by_prediction
from nas.study.roles import BASELINE, REPLICATE, TAKEN_OVER
from nas.study.storage import export_line
from nas.utils.formatting import gib_text, percent


class Paragraph(NamedTuple):
    """A heading and the sentences below it."""

    title: str
    text: str


def summary(view: StudyView) -> str:
    """One line on what a study has trained and what its best candidate is."""
    counts = _counts(view)
    return f"{counts}; {_best(view)}" if view.spec else f"no search of scratch-nas; {counts}"


def summary_paragraphs(view: StudyView) -> list[Paragraph]:
    """Paragraphs on request, training, data, budget, progress and cost of a search; of a study that
    is no search only on its progress.
    """
    progress = Paragraph("So far", f"{_counts(view).capitalize()}; {_best(view)}.")
    if not view.spec:
        return [
            Paragraph(
                "Study", "This study was not made by nas-submit: it has no request, data or budget."
            ),
            progress,
        ]
    check = view.attributes.get("nas_proxy_check")
    proxy = [Paragraph("Proxy", check["text"])] if check else []
    return [
        Paragraph("Search", _search(view.spec)),
        Paragraph("Training", _training(view.spec)),
        Paragraph("Data", _data(view)),
        Paragraph("Budget", _budget(view)),
        progress,
        *_cost(view),
        *proxy,
    ]


def export_command(view: StudyView) -> str | None:
    """Command line that exports the best candidate; None where nothing is complete."""
    return export_line(view.name, view.spec["storage"]) if view.spec and view.board else None


def provenance(view: StudyView) -> dict[str, str]:
    """What the results depend on, as text by name: study, data, commit, versions, devices, seed."""
    known, data = view.attributes, view.attributes.get("nas_data", {})
    versions = ", ".join(
        f"{name} {version}" for name, version in known.get("nas_versions", {}).items()
    )
    devices = sorted({row.device for row in view.rows if row.device})
    origin = {
        "study": known.get("nas_uuid"),
        "data fingerprint": data.get("fingerprint"),
        "git commit": known.get("nas_git_commit"),
        "versions": versions,
        "devices": ", ".join(devices),
        "seed": view.spec.get("search", {}).get("seed"),
    }
    return {name: str(value) for name, value in origin.items() if value not in (None, "")}


def _search(spec: dict[str, Any]) -> str:
    space, detector, search = spec["space"], spec["detector"], spec["search"]
    aims = " and ".join(search["objectives"])
    pruner = (
        "" if search["pruner"] == "none" else f", the pruner {search['pruner']} stops hopeless ones"
    )
    return (
        f"Four-stage backbones of the space {space.get('name')!r} for the detector "
        f"{detector['name']}, {search['trials']} "
        f"asked for, judged by {aims}; the sampler {search['sampler']} suggests them{pruner}."
    )


def _training(spec: dict[str, Any]) -> str:
    recipe, calibration = spec["recipe"], spec["calibration"]
    start = (
        f"from the weights in {PurePosixPath(recipe['weights']).name}"
        if recipe.get("weights")
        else "from scratch"
    )
    calibrated = calibration["enabled"] and not recipe.get("weights")
    what = "outputs" if calibration.get("definition") == "outputs" else "gradients"
    return (
        f"Recipe {recipe['name']}: {recipe['epochs']} epochs {start}, images of "
        f"{recipe['image_size']} pixels on the short "
        f"side, {recipe['batch']} in a batch, {recipe['optimizer']} at {recipe['lr']:g}, "
        f"{recipe['precision']}; "
        f"{f'{what} calibrated' if calibrated else 'without calibration'}."
    )


def _data(view: StudyView) -> str:
    data, asked = view.attributes.get("nas_data", {}), view.spec["data"]
    classes = len(data.get("categories", []))
    return (
        f"{PurePosixPath(asked['root']).name}: {data.get('train_images')} images with "
        f"{data.get('train_boxes')} boxes to train "
        f"on, {data.get('val_images')} with {data.get('val_boxes')} to score, {classes} "
        f"class{'es' * (classes != 1)}."
    )


def _budget(view: StudyView) -> str:
    asked = view.spec["budget"]
    like = f", what {asked['like']} needs" if asked.get("like") else ""
    mode = (
        f"every candidate is made to use it by {asked['vary']}"
        if asked.get("mode") == "equalize"
        else "what needs more is not trained"
    )
    never = refused_by_prediction(view.attributes.get("nas_refusals", {}))
    refused = f" The prediction refused {never} suggestion{'s' * (never != 1)}." if never else ""
    return f"{view.budget_gib:g} GiB of training memory per GPU{like}: {mode}.{refused}"


def _cost(view: StudyView) -> list[Paragraph]:
    cost = cost_line(view.attributes, view.trials)
    return [Paragraph("Cost", cost)] if cost else []


def _counts(view: StudyView) -> str:
    words = [
        f"{count} {state.lower()}"
        for state, count in sorted(view.states.items())
        if state in STATES
    ]
    for role in (BASELINE, REPLICATE):
        if count := view.states[role]:
            words.append(f"{count} {role}{'s' * (count > 1)}")
    if taken_over := view.states[TAKEN_OVER]:
        words.append(f"{taken_over} taken over from earlier studies")
    return ", ".join(words) or "no trials yet"


def _best(view: StudyView) -> str:
    if not view.board:
        return "none is complete and within the budget yet"
    best = view.board[0]
    score = f"mAP {percent(best.map)} %" if best.map is not None else f"value {best.value:g}"
    return (
        f"the best is {best.layout or 'without a layout'} of trial {best.number} with {score} in "
        f"{gib_text(best.memory_gib)} GiB"
    )

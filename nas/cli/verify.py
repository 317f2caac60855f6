"""`nas verify` and `nas reproduce`: whether a bundle is what was exported, and whether it can be
trained again.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json
from nas.utils.formatting import percent
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from nas.export.description import Trained

MAP_TOLERANCE = (
    1e-4  # between scorings of the same weights; batches of other sizes sum in another order
)
LOOSE = 0.01  # between trainings on other hardware or versions, whose rounding sends them apart


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Score it on the validation images there, and compare the mAP."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check a bundle: every byte, that everything loads, that all forms give the same outputs.

    Hashes prove that it is what was exported, not who exported it.
    """
    need_bundle(bundle)
    from nas.errors import BundleError
    from nas.export.verify import Check
    from nas.export.verify import verify as verify_bundle

    trained, _, checks = verify_bundle(bundle)
    if data:
        from nas.cli.train import score

        split = trained.request.get("data", {}).get("val", "val")
        found, said = score(bundle, data, split)[0].map, trained.figures.get("map")
        if found is None or said is None or abs(found - said) > MAP_TOLERANCE:
            raise BundleError(f"the mAP on {str(data)!r} is {found}, the bundle says {said}")
        checks.append(Check("mAP", True, f"{percent(found)} on {data}, as the bundle says"))
    if as_json:
        rows = [
            {"name": check.name, "passed": check.passed, "said": check.said} for check in checks
        ]
        print_json({"bundle": str(bundle), "layout": str(trained.layout), "checks": rows})
        return
    for check in checks:
        print(f"{'ok' if check.passed else 'skipped':8}{check.name:22}{check.said}")


def need_bundle(folder: Path) -> None:
    """Raises `UserError` where there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"bundle folder {str(folder)!r} does not exist")


def reproduce(
    bundle: Annotated[Path, typer.Argument(help="Folder of a bundle.")],
    data: Annotated[str, typer.Option(help="The data set it was trained on, a folder or a URL.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the new bundle; default: none is kept.")
    ] = None,
    other_data: Annotated[
        bool, typer.Option("--other-data", help="Go on where the data set is not the bundle's.")
    ] = False,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Largest difference of the mAP, a fraction; default: 0 on the same CPU and "
            "versions, else 0.01."
        ),
    ] = None,
    no_onnx: options.NoOnnx = False,
    as_json: options.Json = False,
) -> None:
    """Train a bundle's candidate again, by its recipe and seed, and compare the mAP: exit code 1
    where it differs.
    """
    need_bundle(bundle)
    from nas.export.bundle import read_description

    trained = read_description(bundle)
    said = trained.figures.get("map")
    if said is None:
        raise UserError(f"bundle {str(bundle)!r} has no mAP to compare with")
    found, origin = _again(
        trained, bundle, data, out, other_data=other_data, onnx=not no_onnx, as_json=as_json
    )
    differing = _differing(trained.origin, origin)
    exact = not differing and origin["hardware"]["device"] == "cpu"
    allowed = tolerance if tolerance is not None else 0.0 if exact else LOOSE
    same = abs(found - said) <= allowed
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "map": found,
                "map_before": said,
                "same": same,
                "tolerance": allowed,
                "differing": differing,
                "out": str(out) if out else None,
            }
        )
    else:
        for line in differing:
            print(line)
        verdict = "equal to the digit" if found == said else "within" if same else "not within"
        limit = "" if found == said else f" the tolerance of {100 * allowed:g}"
        print(f"{trained.layout}: mAP {100 * found:.4f}, before {100 * said:.4f}, {verdict}{limit}")
    if not same:
        raise typer.Exit(1)


def _again(
    trained: Trained,
    bundle: Path,
    data: str,
    out: Path | None,
    *,
    other_data: bool,
    onnx: bool,
    as_json: bool,
) -> tuple[float, dict[str, Any]]:
    """mAP and origin of the second training."""
    from tempfile import TemporaryDirectory

    from nas.cli.train import requested, train_bundle
    from nas.utils.device import num_threads

    parts = {
        f"data.{key}": value
        for key, value in trained.request.get("data", {}).items()
        if key != "root"
    }
    layout, spec = requested(
        str(bundle), {**parts, "data.root": data, "search.seed": trained.origin["seed"]}
    )
    wanted = None if other_data else trained.origin["data_fingerprint"]
    threads = trained.origin.get("hardware", {}).get("threads")
    with TemporaryDirectory() as scratch, num_threads(threads):
        folder = out or Path(scratch) / "bundle"
        again, _ = train_bundle(
            layout, spec, folder, onnx=onnx and bool(out), as_json=as_json, fingerprint=wanted
        )
    return again.figures["map"] or 0.0, again.origin


def _differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Versions and hardware that are not the same, as `torch was 2.13.0, is 2.14.1`."""
    lines = []
    for section in ("versions", "hardware"):
        old, new = before.get(section, {}), now[section]
        names = sorted({*old, *new} - {"ray", "optuna"})  # these train nothing
        lines += [
            f"{name} was {old.get(name, 'not recorded')}, is {new.get(name)}"
            for name in names
            if old.get(name) != new.get(name)
        ]
    return lines

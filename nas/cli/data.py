"""`nas check-data`, `nas convert`, `nas tile` and `nas make-data`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json, say
from nas.utils.shown_text import in_one_line

if TYPE_CHECKING:
    from nas.data.coco import CocoSplit
    from nas.data.findings import DataIssue
    from nas.data.validation import CheckedSplit

EXAMPLES = 3  # of a kind of finding

Data = Annotated[
    str, typer.Argument(metavar="DATA", help="Folder or zip file of a data set, or its URL.")
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="A new folder.")]
Annotations = Annotated[
    str | None,
    typer.Option(help="Annotation file below DATA; SPLIT in it is the name of a split."),
]
Images = Annotated[
    str | None, typer.Option(help="Folder of the images below DATA, with SPLIT likewise.")
]
SkipBroken = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out what cannot be repaired.")
]


def check_data(
    data: Data,
    split: Annotated[
        list[str] | None, typer.Option(help="Split to check; default: all there are.")
    ] = None,
    annotations: Annotations = None,
    images: Images = None,
    report: Annotated[
        Path | None, typer.Option(help="HTML file with pictures of the data and the plan.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Look into every image and every box of a data set.

    Exit code 1 where something cannot be repaired.
    """
    checked = _checked(data, split, annotations, images)
    if report:
        _write_report(report, data, checked)
    if as_json:
        print_json([_as_dict(each) for each in checked])
    else:
        for each in checked:
            _print(each)
    raise typer.Exit(1 if any(each.lost for each in checked) else 0)


def convert(
    data: Data,
    out: Out,
    annotations: Annotations = None,
    images: Images = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Write a data set of any form that is read in plain COCO form, checked and repaired."""
    from nas.data.conversion import check_new_folder

    check_new_folder(out)
    splits = _usable(data, annotations, images, skip_broken)
    from nas.cli.progress import ImageProgress
    from nas.data.conversion import write_coco

    with ImageProgress() as progress:
        named = [(each.name, each.split) for each in splits]
        write_coco(out, named, progress.on_image)
    _print_written(out, named)


def tile(
    data: Data,
    out: Out,
    size: Annotated[int, typer.Option(min=32, help="Side of a tile, pixels.")] = 1024,
    overlap: Annotated[
        int, typer.Option(min=0, help="Pixels that neighbours share: a large object's size.")
    ] = 128,
    annotations: Annotations = None,
    images: Images = None,
    skip_broken: SkipBroken = False,
) -> None:
    """Cut the images of a data set into tiles, with their boxes and masks, in plain COCO form."""
    from nas.data.conversion import check_new_folder

    check_new_folder(out)
    from nas.data.image_io import scenes

    with scenes():
        splits = _usable(data, annotations, images, skip_broken)
        from nas.cli.progress import ImageProgress
        from nas.data.tiling import write_tiles

        with ImageProgress() as progress:
            named = [(each.name, each.split) for each in splits]
            written = write_tiles(out, named, size, overlap, progress.on_image)
    _print_written(out, written)


def make_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 320,
    val: Annotated[int, typer.Option(min=1, help="Validation images.")] = 60,
    size: Annotated[int, typer.Option(min=32, help="Side of the images, pixels.")] = 112,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
) -> None:
    """Make a small real data set: handwritten digits on photographs, ten classes."""
    from nas.data.digits import make_digits

    make_digits(folder, train=train, val=val, size=size, seed=seed)
    say(f"{folder}: {train} training and {val} validation images of {size} x {size} pixels")


def _checked(
    data: str, split: list[str] | None, annotations: str | None, images: str | None
) -> list[CheckedSplit]:
    import nas
    from nas.cli.progress import ImageProgress
    from nas.data.split_source import Places

    places = Places(annotations, images)
    with ImageProgress() as progress:
        return nas.check_data(data, split, places=places, on_image=progress.on_image)


def _usable(
    data: str, annotations: str | None, images: str | None, skip_broken: bool
) -> list[CheckedSplit]:
    """The checked splits; refused where something would be lost."""
    from nas.data.validation import refuse_faults

    checked = _checked(data, None, annotations, images)
    refuse_faults(checked, data, skip_broken=skip_broken, how="--skip-broken")
    return checked


def _write_report(report: Path, data: str, checked: list[CheckedSplit]) -> None:
    from nas.api.data_report import data_report
    from nas.utils.files import atomic_write

    html = data_report(data, checked).encode()
    atomic_write(report, lambda file: file.write(html))


def _print_written(out: Path, splits: list[tuple[str, CocoSplit]]) -> None:
    for name, split in splits:
        counts = f"{len(split.images)} images, {len(split.boxes)} boxes"
        file = out / f"instances_{name}.json"
        say(f"{file}: {counts}, {len(split.categories)} categories")


def _as_dict(checked: CheckedSplit) -> dict[str, Any]:
    split = checked.split
    return {
        "split": checked.name,
        "form": checked.source.form,
        "annotations": str(checked.source.annotations),
        "part": checked.source.part,
        "folder": str(split.folder),
        "images": len(split.images),
        "images_without_boxes": len(
            {image.id for image in split.images} - set(split.boxes.image_ids.tolist())
        ),
        "boxes": len(split.boxes),
        "crowd_boxes": int(split.boxes.crowds.sum()),
        "boxes_with_masks": split.boxes.with_mask,
        "boxes_per_category": _per_category(checked),
        "problems": [vars(problem) for problem in checked.problems],
    }


def _per_category(checked: CheckedSplit) -> dict[str, int]:
    counts = Counter(checked.split.boxes.category_ids.tolist())
    return {name: counts[category_id] for category_id, name in checked.split.categories}


def _print(checked: CheckedSplit) -> None:
    facts = _as_dict(checked)
    of_boxes = f"{facts['crowd_boxes']} crowds, {facts['boxes_with_masks']} with masks"
    empty = facts["images_without_boxes"]
    say(
        f"{checked.name}, {checked.source}: {facts['images']} images ({empty} without boxes), "
        f"{facts['boxes']} boxes ({of_boxes}), {len(facts['boxes_per_category'])} categories"
    )
    say(
        "  boxes by category: "
        + ", ".join(
            f"{in_one_line(name)} {count}" for name, count in facts["boxes_per_category"].items()
        )
    )
    _print_groups("repaired", [issue for issue in checked.problems if issue.done == "repaired"])
    _print_groups("warning", [issue for issue in checked.problems if issue.warning])
    _print_groups("cannot be repaired", checked.lost)


def _print_groups(verb: str, problems: list[DataIssue]) -> None:
    """Each kind with its number and a few examples."""
    for kind, count in Counter(problem.kind for problem in problems).items():
        say(f"  {verb}: {count} x {kind}")
        examples = [problem for problem in problems if problem.kind == kind][:EXAMPLES]
        for problem in examples:
            where, detail = in_one_line(problem.where), in_one_line(problem.detail or "")
            say(f"    {where}" + (f": {detail}" if detail else ""))
        if count > EXAMPLES:
            say(f"    and {count - EXAMPLES} more (--json has all)")

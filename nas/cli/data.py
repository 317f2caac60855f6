"""`nas check-data` and `nas make-data`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas.cli import options
from nas.cli.runner import print_json

if TYPE_CHECKING:
    from nas.data.findings import DataIssue
    from nas.data.validation import CheckedSplit

EXAMPLES = 3  # of a kind of finding


def check_data(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder with images and annotations in COCO form.")
    ],
    split: Annotated[
        list[str] | None, typer.Option(help="Split to check; default: train and val.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Look into every image and every box of a data set.

    Exit code 1 where something cannot be repaired.
    """
    from nas.data.split_source import find_split

    names = split or ["train", "val"]
    for name in names:
        find_split(folder, name)
    from nas.cli.progress import ImageProgress
    from nas.data.validation import check_splits

    with ImageProgress() as progress:
        checked = check_splits(folder, names, progress.on_image)
    if as_json:
        print_json([_as_dict(each) for each in checked])
    else:
        for each in checked:
            _print(each)
    raise typer.Exit(1 if any(each.lost for each in checked) else 0)


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
    print(f"{folder}: {train} training and {val} validation images of {size} x {size} pixels")


def _as_dict(checked: CheckedSplit) -> dict[str, Any]:
    split = checked.split
    return {
        "split": checked.name,
        "form": checked.form,
        "folder": str(split.folder),
        "images": len(split.images),
        "images_without_boxes": len(
            {image.id for image in split.images} - {box.image_id for box in split.boxes}
        ),
        "boxes": len(split.boxes),
        "crowd_boxes": sum(box.iscrowd for box in split.boxes),
        "boxes_with_masks": sum(box.segmentation is not None for box in split.boxes),
        "boxes_per_category": _per_category(checked),
        "problems": [vars(problem) for problem in checked.problems],
    }


def _per_category(checked: CheckedSplit) -> dict[str, int]:
    counts = Counter(box.category_id for box in checked.split.boxes)
    return {name: counts[category_id] for category_id, name in checked.split.categories}


def _print(checked: CheckedSplit) -> None:
    facts = _as_dict(checked)
    of_boxes = f"{facts['crowd_boxes']} crowds, {facts['boxes_with_masks']} with masks"
    empty = facts["images_without_boxes"]
    print(
        f"{checked.name}, {checked.form}: {facts['images']} images ({empty} without boxes), "
        f"{facts['boxes']} boxes ({of_boxes}), {len(facts['boxes_per_category'])} categories"
    )
    print(
        "  boxes by category: "
        + ", ".join(f"{name} {count}" for name, count in facts["boxes_per_category"].items())
    )
    repaired = [problem for problem in checked.problems if problem.repaired]
    _print_groups("repaired", repaired)
    _print_groups("cannot be repaired", checked.lost)


def _print_groups(verb: str, problems: list[DataIssue]) -> None:
    """Each kind with its number and a few examples."""
    for kind, count in Counter(problem.kind for problem in problems).items():
        print(f"  {verb}: {count} x {kind}")
        examples = [problem for problem in problems if problem.kind == kind][:EXAMPLES]
        for problem in examples:
            print(f"    {problem.where}" + (f": {problem.detail}" if problem.detail else ""))
        if count > EXAMPLES:
            print(f"    and {count - EXAMPLES} more (--json has all)")

"""The check that every data set passes on its way in: files, sizes, boxes, categories.

Found and repaired, which loses no box: a size that disagrees with the file, EXIF orientation, grey,
palette, alpha and 16-bit images, a PNG named .jpg, a box partly outside, duplicate or missing
annotation ids, an image or annotation listed twice. A malformed mask is left out, its box is used.
Found and named, because it cannot be repaired: a missing or broken image, one image id for two
files, a box outside or of zero area, a malformed box, an unknown category or image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nas.data.annotation_files import read_categories, without_root
from nas.data.box_validation import read_boxes
from nas.data.coco import CocoSplit, ImageRecord
from nas.data.deep_images import DEEPEST, white_level
from nas.data.file_names import ImageFiles, stated_name
from nas.data.findings import DataIssue, Findings
from nas.data.ids import as_id, with_own_ids
from nas.data.image_io import BrokenImage, ImageFacts, inspect_images
from nas.data.split_categories import with_categories_of
from nas.data.split_source import find_split
from nas.errors import DataError
from nas.utils.progress import CountProgress

SHOWN = 5  # findings named in an error


@dataclass(frozen=True)
class CheckedSplit:
    """What can be used of a split, and the issues that the check met.

    Args:
        name: name of the split: `train`.
        split: the images and boxes that can be used.
        problems: every issue, in the order they were met.
        brightest: largest value of its images of more than 8 bits; 0 without any.
        form: in which it was found: `COCO`, `YOLO` or `Pascal VOC`.
        source: name of its annotation file, for findings.
    """

    name: str
    split: CocoSplit
    problems: tuple[DataIssue, ...]
    brightest: int = 0
    form: str = "COCO"
    source: str = ""

    @property
    def lost(self) -> list[DataIssue]:
        """The issues that could not be repaired."""
        return [problem for problem in self.problems if not problem.repaired]


def check_split(root: Path, name: str, progress: CountProgress | None = None) -> CheckedSplit:
    """Read a split, decode every image file, and repair what can be repaired.

    Args:
        root: folder of the data set.
        name: name of the split.
        progress: told of every image.

    Raises:
        DataError: a folder or file that cannot be read at all.
    """
    source = find_split(root, name)
    folder, annotation_file, findings = source.images, source.annotations, Findings()
    content = with_own_ids(source.read(), annotation_file.name, findings)
    listed = without_root(content, annotation_file.name, findings)
    categories = read_categories(listed, str(annotation_file), findings)
    entries = _image_entries(content["images"], folder, annotation_file.name, findings)
    images, brightest, digests = dict[int, ImageRecord](), 0, list[str]()
    files = [(folder / entry["file_name"], _stated_size(entry)) for entry in entries]
    for done, (entry, facts) in enumerate(
        zip(entries, inspect_images(files), strict=True), start=1
    ):
        if isinstance(facts, BrokenImage):
            findings.lost(
                "missing image" if str(facts) == "is missing" else "broken image",
                entry["file_name"],
                detail=str(facts),
            )
        else:
            images[entry["id"]] = _record(entry, facts, findings)
            brightest = max(brightest, facts.brightest or 0)
            digests.append(facts.digest)
        if progress:
            progress(name, done, len(entries))
    unusable = {as_id(entry.get("id")) for entry in content["images"]} - set(images)
    annotations = [
        entry for entry in content["annotations"] if as_id(entry.get("image_id")) not in unusable
    ]
    boxes = read_boxes(
        annotations,
        images,
        [category for category, _ in categories],
        annotation_file.name,
        findings,
    )
    if not boxes:
        findings.lost("no boxes", annotation_file.name, detail="nothing to learn from or to score")
    white = white_level(brightest) if brightest else DEEPEST
    bytes_of_all = hashlib.sha256("".join(digests).encode()).hexdigest()
    split = CocoSplit(folder, tuple(images.values()), tuple(boxes), categories, white, bytes_of_all)
    return CheckedSplit(
        name, split, tuple(findings.problems), brightest, source.form, annotation_file.name
    )


def usable_splits(
    root: Path, names: tuple[str, ...], *, skip_broken: bool, progress: CountProgress | None = None
) -> list[CheckedSplit]:
    """Check splits that are to be trained on or scored, and refuse what would make their figures
    wrong.

    Args:
        root: folder of the data set.
        names: names of the splits.
        skip_broken: leave out what cannot be repaired instead of refusing the split.
        progress: told of every image.

    Raises:
        DataError: something could not be repaired (unless `skip_broken`), or a split without
            boxes, or with crowds alone.
    """
    checked = check_splits(root, names, progress)
    for each in checked:
        of, lost = f"split {each.name!r} of {str(root)!r}", each.lost
        shown = "; ".join(map(str, lost[:SHOWN]))
        shown += f"; and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        if not each.split.boxes:
            raise DataError(f"{of} has no usable box: {shown}. See 'nas check-data {root}'")
        if lost and not skip_broken:
            raise DataError(
                f"{of} has faults that cannot be repaired: {shown}. "
                f"See 'nas check-data {root}', or leave them out with --set data.skip_broken=true"
            )
        if all(box.iscrowd for box in each.split.boxes):
            count = len(each.split.boxes)
            raise DataError(f"{of} has no object: all its {count} boxes are crowds (iscrowd 1)")
    return checked


def check_splits(
    root: Path, names: Sequence[str], progress: CountProgress | None = None
) -> list[CheckedSplit]:
    """Check splits, and give all of them the categories of the first and one white level; arguments
    and errors as those of `check_split`.
    """
    checked = [check_split(root, name, progress) for name in names]
    first, brightest = checked[0], max(each.brightest for each in checked)
    white = white_level(brightest) if brightest else DEEPEST
    for index, each in enumerate(checked):
        split, issues = with_categories_of(each.split, first.split, first.name, each.source)
        if each.brightest:
            issues.append(_deep_issue(brightest, white, each.source))
        split = replace(split, white_level=white)
        checked[index] = replace(each, split=split, problems=(*each.problems, *issues))
    return checked


def _deep_issue(brightest: int, white: int, source: str) -> DataIssue:
    bits = white.bit_length()
    said = f"values up to {brightest}, {bits} bits: 0 to {white} become 0 to 255"
    return DataIssue("images of more than 8 bits", True, source, None, said)


def _image_entries(
    entries: list[dict[str, Any]], folder: Path, source: str, findings: Findings
) -> list[dict[str, Any]]:
    """Entries of different images, each with the name that its file has on this disk."""
    files, by_id, by_file = ImageFiles(folder), dict[int, dict[str, Any]](), dict[str, int]()
    for entry in entries:
        image_id, stated = entry.get("id"), stated_name(entry)
        if type(image_id) is not int or stated is None:
            raise DataError(f"{source}: an image needs an id and a file_name; got {entry!r}")
        file = files.find(stated) or stated
        if file != stated:
            findings.repaired("file name of another spelling", file, detail=f"{stated!r} stated")
        if image_id in by_id and by_id[image_id]["file_name"] == file:
            findings.repaired("image listed twice", file)
        elif image_id in by_id:
            other = by_id[image_id]["file_name"]
            findings.lost("duplicate image id", file, detail=f"id {image_id} is {other}")
        elif file in by_file:
            findings.lost("file of two images", file, detail=f"ids {by_file[file]} and {image_id}")
        else:
            by_id[image_id], by_file[file] = {**entry, "file_name": file}, image_id
    return list(by_id.values())


def _stated_size(entry: dict[str, Any]) -> tuple[int, int] | None:
    size = entry.get("width"), entry.get("height")
    return size if all(type(side) is int for side in size) else None  # type: ignore[return-value]


def _record(entry: dict[str, Any], facts: ImageFacts, findings: Findings) -> ImageRecord:
    file, stated = entry["file_name"], _stated_size(entry)
    if facts.turned:
        findings.repaired("EXIF orientation", file, detail="turned")
    if facts.converted_from:
        findings.repaired("not 8-bit RGB", file, detail=f"mode {facts.converted_from}, converted")
    if facts.pages > 1:
        findings.repaired("several pages", file, detail=f"{facts.pages}, the first is used")
    if facts.misnamed:
        findings.repaired("name of another format", file, detail=f"is {facts.misnamed}")
    if stated != (facts.width, facts.height):
        stated_text = "no size" if stated is None else f"{stated[0]}x{stated[1]}"
        findings.repaired(
            "size disagrees with the file",
            file,
            detail=f"{stated_text} stated, {facts.width}x{facts.height} used",
        )
    return ImageRecord(entry["id"], file, facts.width, facts.height)

"""The check that every data set passes on its way in: files, sizes, boxes, categories.

Found and repaired, which loses no box: a size that disagrees with the file, EXIF orientation, grey,
palette, alpha and 16-bit images, a PNG named .jpg, a box partly outside, duplicate or missing
annotation ids, an image or annotation listed twice. A malformed mask is left out, its box is used.
Found and named, because it cannot be repaired: a missing or broken image, one image id for two
files, a box outside or of zero area, a malformed box, an unknown category or image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nas.data.annotation_files import read_categories, without_root
from nas.data.annotation_list import only
from nas.data.box_validation import read_boxes
from nas.data.coco import CocoSplit
from nas.data.deep_images import DEEPEST, white_level
from nas.data.duplicate_images import duplicate_images
from nas.data.findings import DataIssue, Findings
from nas.data.ids import as_id
from nas.data.image_validation import UNUSABLE, check_images, image_entries
from nas.data.known_checks import Check, keep_check, known_check
from nas.data.renumbering import with_own_ids
from nas.data.split_categories import with_categories_of
from nas.data.split_source import GUESSED, Places, SplitSource, find_split, find_splits
from nas.errors import DataError
from nas.utils.progress import CountProgress
from nas.utils.shell import command_line

SHOWN = 5  # findings named in an error
SCORED = 100  # detections of an image
CROWDED = f"image with more than {SCORED} objects"


@dataclass(frozen=True)
class CheckedSplit(Check):
    """What a check found of a split of a data set.

    Args:
        name: name of the split: `train`.
        source: where it was found, and in which form.
    """

    name: str
    source: SplitSource

    @property
    def lost(self) -> list[DataIssue]:
        """The issues that could not be repaired."""
        return [problem for problem in self.problems if not problem.repaired]


def check_split(
    root: Path, name: str, progress: CountProgress | None = None, places: Places = GUESSED
) -> CheckedSplit:
    """Read a split, decode every image file, and repair what can be repaired.

    Args:
        root: folder of the data set.
        name: name of the split.
        progress: told of every image.
        places: where files are that would not be found.

    Raises:
        DataError: a folder or file that cannot be read at all.
    """
    return _check(find_split(root, name, places), name, progress)


def _check(
    source: SplitSource, name: str, progress: CountProgress | None, *, masks: bool = True
) -> CheckedSplit:
    found = known_check(source, masks=masks)
    if not found:
        found = _read(source, partial(progress, name) if progress else None, masks)
        keep_check(source, found, masks=masks)
    elif progress:
        progress(name, len(found.split.images), len(found.split.images))
    return CheckedSplit(**vars(found), name=name, source=source)


def _read(source: SplitSource, progress: Callable[[int, int], None] | None, masks: bool) -> Check:
    file, findings = source.annotations.name, Findings()
    content = with_own_ids(source.read(), file, findings)
    listed = without_root(content, file, findings)
    categories = read_categories(listed, str(source.annotations), findings)
    entries = image_entries(content["images"], source.images, file, findings)
    images = check_images(entries, source.images, findings, progress)
    unusable = {as_id(entry.get("id")) for entry in content["images"]} - set(images.records)
    annotations = content["annotations"]
    if unusable:
        usable = (as_id(entry.get("image_id")) not in unusable for entry in annotations)
        annotations = only(annotations, usable)
    known = [category for category, _ in categories]
    boxes = read_boxes(annotations, images.records, known, file, findings, masks=masks)
    if not len(boxes):
        findings.lost("no boxes", file, detail="nothing to learn from or to score")
    white = white_level(images.brightest) if images.brightest else DEEPEST
    digest = hashlib.sha256("".join(images.digests.values()).encode()).hexdigest()
    split = CocoSplit(
        source.images, tuple(images.records.values()), boxes, categories, white, digest
    )
    return Check(split, tuple(findings.problems), images.brightest, images.digests)


def usable_splits(
    root: Path,
    names: Sequence[str],
    *,
    skip_broken: bool,
    progress: CountProgress | None = None,
    places: Places = GUESSED,
    masks: bool = True,
) -> list[CheckedSplit]:
    """Check splits that are to be trained on or scored, and refuse what would make their figures
    wrong.

    Args:
        root: folder of the data set.
        names: names of the splits.
        skip_broken: leave out what cannot be repaired instead of refusing the split.
        progress: told of every image.
        places: where files are that would not be found.
        masks: keep the masks, which can take ten times the memory of the boxes.

    Raises:
        DataError: something could not be repaired (unless `skip_broken`), or a split without
            boxes, or with crowds alone.
    """
    checked = check_splits(root, names, progress, places, masks=masks)
    refuse_faults(checked, str(root), skip_broken=skip_broken)
    return checked


def refuse_faults(
    checked: Sequence[CheckedSplit],
    data: str,
    *,
    skip_broken: bool,
    how: str = "--set data.skip_broken=true",
) -> None:
    """Refuse checked splits whose figures would be wrong.

    Args:
        checked: the splits.
        data: the data set, for the error.
        skip_broken: what cannot be repaired may be left out.
        how: the flag that says so, for the error.

    Raises:
        DataError: as `usable_splits`.
    """
    for each in checked:
        if fault := _refusal(
            each, f"See: {command_line('nas', 'check-data', data)}", skip_broken, how
        ):
            raise DataError(f"split {each.name!r} of {data!r} {fault}")


def _refusal(checked: CheckedSplit, see: str, skip_broken: bool, how: str) -> str:
    """Why a split cannot be used, what is missing first; empty where it can."""
    lost = sorted(checked.lost, key=lambda issue: issue.kind not in UNUSABLE)
    shown = "; ".join(map(str, lost[:SHOWN]))
    shown += f"; and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    if not checked.split.images and lost:
        return f"has no usable image: {shown}. {see}"
    if not len(checked.split.boxes):
        return f"has no usable box: {shown}. {see}"
    if lost and not skip_broken:
        return f"has faults that cannot be repaired: {shown}. {see}, or leave them out with {how}"
    if checked.split.boxes.crowds.all():
        count = len(checked.split.boxes)
        return f"has no object: all its {count} boxes are crowds (iscrowd 1)"
    return ""


def check_splits(
    root: Path,
    names: Sequence[str],
    progress: CountProgress | None = None,
    places: Places = GUESSED,
    *,
    masks: bool = True,
) -> list[CheckedSplit]:
    """Check splits, give all of them the categories of the first and one white level, and look for
    images that several have; arguments and errors as those of `usable_splits`.
    """
    found = zip(names, find_splits(root, names, places), strict=True)
    checked = [_check(source, name, progress, masks=masks) for name, source in found]
    first, brightest = checked[0], max(each.brightest for each in checked)
    white = white_level(brightest) if brightest else DEEPEST
    copies = duplicate_images([(each.name, each.digests) for each in checked])
    for index, each in enumerate(checked):
        file = each.source.annotations.name
        split, issues = with_categories_of(each.split, first.split, first.name, file)
        if each.brightest:
            issues.append(_deep_issue(brightest, white, file))
        split = replace(split, white_level=white)
        issues += _crowded(split)
        problems = (*each.problems, *issues, *copies[each.name])
        checked[index] = replace(each, split=split, problems=problems)
    return checked


def _crowded(split: CocoSplit) -> list[DataIssue]:
    """Warn of each image with more objects than the detections of an image that are scored."""
    ids, counts = np.unique(split.boxes.objects.image_ids, return_counts=True)
    crowded = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    said = f"{{}} objects; COCO's metrics look at the best {SCORED} detections of an image"
    return [
        DataIssue(CROWDED, True, image.file_name, detail=said.format(count), warning=True)
        for image in split.images
        if (count := crowded.get(image.id, 0)) > SCORED
    ]


def _deep_issue(brightest: int, white: int, source: str) -> DataIssue:
    bits = white.bit_length()
    said = f"values up to {brightest}, {bits} bits: 0 to {white} become 0 to 255"
    return DataIssue("images of more than 8 bits", True, source, None, said)

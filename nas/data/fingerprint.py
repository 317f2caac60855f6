"""What tells a data set from another: digits over its annotations and its image files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator

from nas.data.box_table import Box
from nas.data.coco import CocoSplit
from nas.utils.disk_cache import DiskCache


def fingerprint(splits: Iterable[CocoSplit]) -> str:
    """Hash splits: sixteen hexadecimal digits over every box, segmentation and category, and the
    name and size in bytes of every image file, which is all that release 0.1.0 had (see
    `nas.reports.dataset.same_data`); and sixteen over the bytes of the image files.
    """
    splits = list(splits)
    if not all(split.content for split in splits):
        return _fingerprint(splits)
    cache = DiskCache("fingerprints", ("nas.data",))
    known = cache.get_or_make(
        [_quick_digest(split) for split in splits], lambda: {"digits": _fingerprint(splits)}
    )
    return str(known["digits"])


def _fingerprint(splits: list[CocoSplit]) -> str:
    content = hashlib.sha256("".join(split.content for split in splits).encode())
    digest = hashlib.sha256()
    for split in splits:
        for text in _json_parts(split):
            digest.update(text.encode())
        digest.update(
            str(
                [(split.folder / image.file_name).stat().st_size for image in split.images]
            ).encode()
        )
    return digest.hexdigest()[:16] + content.hexdigest()[:16]


def _quick_digest(split: CocoSplit) -> str:
    """Hash everything that the fingerprint is over, from columns: a hundredth of its time."""
    digest = hashlib.blake2b(digest_size=16)
    others = [split.to_coco(boxes=False), split.content]
    digest.update(json.dumps([others, len(split.boxes)]).encode())
    for column in split.boxes.columns():
        digest.update(column.tobytes())
    for mask in split.boxes.masks:
        digest.update(b"\n" if mask is None else b"%d %s" % (len(mask), mask))
    return digest.hexdigest()


def _json_parts(split: CocoSplit) -> Iterator[str]:
    """`json.dumps(split.to_coco(), sort_keys=True)` piece by piece: whole, it would take gigabytes
    for a million boxes.
    """
    yield '{"annotations": ['
    for number, box in enumerate(split.boxes):
        yield (", " if number else "") + _box_json(box)
    others = split.to_coco(boxes=False)
    del others["annotations"]
    yield "], " + json.dumps(others, sort_keys=True)[1:]


def _box_json(box: Box) -> str:
    """`json.dumps(box.to_coco(), sort_keys=True)` in a third of the time."""
    mask = "" if box.segmentation is None else json.dumps(box.segmentation, sort_keys=True)
    return (
        f'{{"area": {box.area!r}, "bbox": {[*box.bbox]!r}, "category_id": {box.category_id}, '
        f'"id": {box.id}, "image_id": {box.image_id}, "iscrowd": {box.iscrowd}'
        + (f', "segmentation": {mask}}}' if mask else "}")
    )

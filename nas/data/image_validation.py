"""The check of every image of a split: its entry, its name, its file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nas.data.coco import ImageRecord
from nas.data.file_names import ImageFiles, stated_name
from nas.data.findings import Findings
from nas.data.image_io import MISSING, BrokenImage, ImageFacts
from nas.data.known_images import inspect_folder
from nas.errors import DataError

UNUSABLE = ("missing image", "broken image")  # kinds of findings


class CheckedImages(NamedTuple):
    """The images of a split that can be used.

    Args:
        records: by id.
        digests: of the bytes of each file, by its name.
        brightest: largest value of those of more than 8 bits; 0 without any.
    """

    records: dict[int, ImageRecord]
    digests: dict[str, str]
    brightest: int


def check_images(
    entries: list[dict[str, Any]],
    folder: Path,
    findings: Findings,
    progress: Callable[[int, int], None] | None,
) -> CheckedImages:
    """Inspect the files of images.

    Args:
        entries: of different images, as `image_entries` gives them.
        folder: of the files.
        findings: takes what was repaired and what was lost.
        progress: told how many are done, and of how many.
    """
    records, digests, brightest = dict[int, ImageRecord](), dict[str, str](), 0
    files = [(entry["file_name"], _stated_size(entry)) for entry in entries]
    inspected = zip(entries, inspect_folder(folder, files), strict=True)
    for done, (entry, facts) in enumerate(inspected, start=1):
        file = entry["file_name"]
        if isinstance(facts, BrokenImage):
            findings.lost(UNUSABLE[str(facts) != MISSING], file, detail=str(facts))
        else:
            records[entry["id"]] = _record(entry, facts, findings)
            brightest = max(brightest, facts.brightest or 0)
            digests[file] = facts.digest
        if progress:
            progress(done, len(entries))
    return CheckedImages(records, digests, brightest)


def image_entries(
    entries: Sequence[dict[str, Any]], folder: Path, source: str, findings: Findings
) -> list[dict[str, Any]]:
    """List the entries of different images, each with the name that its file has on this disk.

    Args:
        entries: the file's list `images`.
        folder: of the image files.
        source: the annotation file, for errors.
        findings: takes names of another spelling, and entries that stand twice.

    Raises:
        DataError: an entry without an id or a name.
    """
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

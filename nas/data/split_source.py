"""A split of a data set in any form that is read: COCO's, YOLO's or Pascal VOC's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nas.data.annotation_files import read_entries
from nas.data.holdout import part_of
from nas.data.split_files import find_coco, find_image_folder, has_images, only_file
from nas.data.voc import all_xml_files, read_voc, xml_files
from nas.data.yolo import all_image_files, find_description, image_files, read_yolo
from nas.errors import DataError
from nas.utils.paths import real_path

SHOWN = 8  # entries of a folder in an error
TRAIN, VAL, TEST = "train", "val", "test"
STANDARD = {TRAIN, VAL, TEST}
SPLIT = "SPLIT"  # in a place: the name of the split

Content = Mapping[str, Sequence[Any]]  # dictionaries, annotations perhaps as `AnnotationEntry`


class Places(NamedTuple):
    """Where a data set has its parts, where that is not to be guessed.

    Args:
        annotations: annotation file in COCO's form, below the data set's folder; `SPLIT` in it
            is the name of a split, without it the file is of all images.
        images: folder of the images, below the data set's folder, with `SPLIT` likewise.
    """

    annotations: str | None = None
    images: str | None = None


GUESSED = Places()


@dataclass(frozen=True)
class SplitSource:
    """Where a split is, and how it is read.

    Args:
        form: `COCO`, `YOLO` or `Pascal VOC`.
        images: folder that the names of image files are looked for in.
        annotations: the annotation file, or the file that describes the data set, or a folder.
        read: gives the lists `images`, `annotations` and `categories` of a COCO file, not yet
            checked; raises `DataError`.
        part: what it is a part of, in words; empty for a split that the data set itself has.
    """

    form: str
    images: Path
    annotations: Path
    read: Callable[[], Content]
    part: str = ""

    def __str__(self) -> str:
        return f"{self.form}, {self.part or self.annotations.name}"

    def parted(self, *, held_out: bool) -> SplitSource:
        """The part of this source that is validated on, or the rest of it, which is trained on."""
        share = "a fifth" if held_out else "four fifths"
        part = f"{share} of the images of {self.annotations.name}"
        return replace(self, read=partial(_part, self.read, held_out), part=part)


def _part(read: Callable[[], Content], held_out: bool) -> Content:
    return part_of(read(), held_out=held_out)


def find_splits(root: Path, names: Sequence[str], places: Places = GUESSED) -> list[SplitSource]:
    """Find splits of a data set. Where `val` is asked for and not there, or there are no splits at
    all, a fifth of the images is `val` and the others are `train` (see `nas.data.holdout`).

    Args:
        root: folder of the data set.
        names: `train`, `val`, `test` or names of the user's; of the first three other spellings
            are found too (`valid`, `val2017`).
        places: where files are that would not be found.

    Raises:
        DataError: no such folder, or no such split in it.
    """
    if not root.is_dir():
        raise DataError(
            f"data set folder {str(root)!r} does not exist"
            if not root.exists()
            else f"{str(root)!r} is no folder"
        )
    found = {name: _find(root, name, places) for name in names}
    if set(names) <= STANDARD and (VAL in names or not found.get(TRAIN)):
        found |= _held_out(root, places, found)
    sources = []
    for name in names:  # one split may be asked for twice, to score on what is trained on
        source = found[name]
        if source is None:
            raise _missing(root, name, places)
        sources.append(source)
    return sources


def split_names(root: Path, places: Places = GUESSED) -> list[str]:
    """List the splits to look for in a data set: `train` and `val`, and `test` where there is one;
    arguments as those of `find_splits`.
    """
    return [TRAIN, VAL, *([TEST] if _find(root, TEST, places) else [])]


def find_split(root: Path, name: str, places: Places = GUESSED) -> SplitSource:
    """Find one split of a data set; arguments and errors as those of `find_splits`."""
    return find_splits(root, (name,), places)[0]


def _held_out(
    root: Path, places: Places, found: dict[str, SplitSource | None]
) -> dict[str, SplitSource | None]:
    """The two parts of a data set without a `val`, those of them that are asked for."""
    if found.get(VAL) or _find(root, VAL, places):
        return {}
    whole = found.get(TRAIN) or _find(root, TRAIN, places) or _find_only(root, places)
    if not whole:
        return {}
    return {name: whole.parted(held_out=name == VAL) for name in found if name in (TRAIN, VAL)}


def _find(root: Path, name: str, places: Places) -> SplitSource | None:
    if places.annotations:
        file = _annotations(root, places.annotations.replace(SPLIT, name))
        named = SPLIT in places.annotations and file.is_file()
        return _of_file(root, name, file, places) if named else None
    return _coco(root, name, places) or _yolo(root, name) or _voc(root, name)


def _find_only(root: Path, places: Places) -> SplitSource | None:
    """The source of a data set that has no splits."""
    if places.annotations:
        stated = _annotations(root, places.annotations)
        return _of_file(root, "", stated, places) if stated.is_file() else None
    file = only_file(root, sure=True)
    if not file and (source := _only_yolo(root) or _only_voc(root)):
        return source
    file = file or only_file(root, sure=False)
    return _of_file(root, "", file, places) if file else None


def _annotations(root: Path, stated: str) -> Path:
    """The place of a file that may be a link, but lies in the data set."""
    if Path(stated).is_absolute() or ".." in Path(stated).parts:
        raise DataError(f"data.annotations must be a file below {str(root)!r}; got {stated!r}")
    return root / stated


def _of_file(root: Path, name: str, file: Path, places: Places) -> SplitSource:
    stated = places.images and root / places.images.replace(SPLIT, name)
    folder = stated or find_image_folder(root, name, file)
    if not folder.is_dir() or not real_path(folder).is_relative_to(real_path(root)):
        raise DataError(f"data.images must be a folder below {str(root)!r}; got {str(folder)!r}")
    return SplitSource("COCO", folder, file, partial(read_entries, file))


def _coco(root: Path, name: str, places: Places) -> SplitSource | None:
    found = find_coco(root, name)
    return found and _of_file(root, found.name, found.file, places)


def _yolo(root: Path, split: str) -> SplitSource | None:
    description = find_description(root)
    images = image_files(description, split) if description else []
    return _yolo_of(root, description, images) if description and images else None


def _only_yolo(root: Path) -> SplitSource | None:
    description = find_description(root)
    images = all_image_files(root) if description else []
    return _yolo_of(root, description, images) if description and images else None


def _yolo_of(root: Path, description: Path, images: Sequence[Path]) -> SplitSource:
    base, found = real_path(root), [real_path(path) for path in images]
    if outside := [path for path in found if not path.is_relative_to(base)]:
        raise DataError(f"{description}: images must be in {str(root)!r}; got {outside[0]}")
    inside = [root / path.relative_to(base) for path in found]
    return SplitSource("YOLO", root, description, partial(read_yolo, description, inside, root))


def _voc(root: Path, split: str) -> SplitSource | None:
    files = xml_files(root, split)
    return _voc_of(root, files) if files else None


def _only_voc(root: Path) -> SplitSource | None:
    files = all_xml_files(root)
    return _voc_of(root, files) if files else None


def _voc_of(root: Path, files: Sequence[Path]) -> SplitSource:
    own = files[0].parent
    beside = (own.parent / "images", own.parent / "JPEGImages", own.parent)
    folders = (own, *beside, root / "JPEGImages", root / "images", root)
    images = next(filter(has_images, folders), files[0].parent)
    return SplitSource(
        "Pascal VOC", images, files[0].parent, partial(read_voc, files, images, root)
    )


def _missing(root: Path, name: str, places: Places) -> DataError:
    if places.annotations:
        file = root / places.annotations.replace(SPLIT, name)
        if not file.is_file():
            return DataError(
                f"data.annotations must be a file below {str(root)!r}; there is no {file}"
            )
        return DataError(
            f"no split {name!r}: data.annotations {places.annotations!r} is of all images"
        )
    there = sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir())
    return DataError(
        f"no split {name!r} in {str(root)!r}; looked for instances_{name}.json with {name}/, "
        "for the layouts of COCO, Roboflow and CVAT, for YOLO and Pascal VOC; there is "
        f"{', '.join(there[:SHOWN]) or 'nothing'}. "
        "--set data.annotations=FILE and --set data.images=DIR name others"
    )

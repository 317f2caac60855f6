"""A validation split held out of the images of a data set that has none.

Frames of one video and copies that Roboflow made of one image stay together, so that a detector is
not scored on what it was trained on. The rest is iterative stratification (Sechidis, Tsoumakas and
Vlahavas, On the Stratification of Multi-Label Data, ECML 2011, algorithm 1), with groups of images
in place of examples, boxes in place of labels, and the order of a hash in place of chance: the same
names give the same split on every machine.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from nas.data.file_names import stated_name
from nas.data.ids import common_name
from nas.errors import DataError

SHARE = 0.2  # of the images
LEAST_IMAGES = 3
LEAST_VIDEOS = 5  # of fewer, a fifth cannot be held out whole
_COPY = re.compile(r"(_(jpe?g|png))?\.rf\.\w+$")  # behind the name of an image that Roboflow copied
_FRAME = ("frame", "f")  # may stand before the number of one

Entries = Sequence[Any]  # dictionaries, annotations perhaps as `AnnotationEntry`
Group = list[int]


def part_of(content: Mapping[str, Entries], *, held_out: bool) -> dict[str, Entries]:
    """Give one of the two parts of an annotation file.

    Args:
        content: its lists `images`, `annotations` and `categories`.
        held_out: the part to validate on; else the part to train on, with all annotations that
            belong to no image.

    Raises:
        DataError: fewer than three images.
    """
    from nas.data.annotation_list import only  # brings NumPy, which --help does not need

    images, annotations = content["images"], content["annotations"]
    if len(images) < LEAST_IMAGES:
        raise DataError(
            f"{len(images)} images are too few to hold some out: the data set needs a split 'val', "
            f"or {LEAST_IMAGES} images"
        )
    objects: dict[Hashable, Counter[Hashable]] = defaultdict(Counter)
    for entry in annotations:
        objects[common_name(entry.get("image_id"))][common_name(entry.get("category_id"))] += 1
    ids = [common_name(entry.get("id")) for entry in images]
    chosen = choose([stated_name(entry) or "" for entry in images], [objects[i] for i in ids])
    out = {ids[index] for index in chosen}
    return {
        **content,
        "images": [e for e, name in zip(images, ids, strict=True) if (name in out) is held_out],
        "annotations": only(
            annotations, ((common_name(e.get("image_id")) in out) is held_out for e in annotations)
        ),
    }


def choose(names: Sequence[str], objects: Sequence[Counter[Hashable]]) -> set[int]:
    """Choose the images that are held out, about a fifth.

    Args:
        names: of the image files.
        objects: for each image the number of its objects by category.

    Returns:
        Indices of images.
    """
    groups = sorted(
        together(names, objects), key=lambda group: min(_hash(names[index]) for index in group)
    )
    counts = [sum((objects[index] for index in group), Counter()) for group in groups]
    chosen = _stratified([len(group) for group in groups], counts)
    return {index for which in chosen for index in groups[which]}


def together(names: Sequence[str], objects: Sequence[Counter[Hashable]]) -> list[Group]:
    """Group the images that must not be parted: by video where the names tell videos, else by the
    image that they are copies of.

    Names tell videos where there are at least five that differ in more than their last number, none
    has more than half of the images, and they are not the names of categories.
    """
    videos = _grouped([_video(name) for name in names])
    largest = max(map(len, videos))
    if len(videos) >= LEAST_VIDEOS and largest <= len(names) / 2 and _mixed(videos, objects):
        return videos
    return _grouped([_source(name) for name in names])


def _mixed(groups: Sequence[Group], objects: Sequence[Counter[Hashable]]) -> bool:
    """Whether most categories that several images have are in several groups."""
    images = Counter(kind for each in objects for kind in each)
    held = Counter(kind for group in groups for kind in {k for i in group for k in objects[i]})
    common = [kind for kind, count in images.items() if count > 1]
    return sum(held[kind] > 1 for kind in common) * 2 >= len(common)


class _Parts:
    """The two parts as they fill: to train on, and held out."""

    def __init__(self, sizes: Sequence[int], counts: Sequence[Counter[Hashable]]) -> None:
        self.sizes, self.counts = sizes, counts
        total = Counter[Hashable]()
        for count in counts:
            total.update(count)
        shares = (1 - SHARE, SHARE)
        self.wanted = [{kind: share * n for kind, n in total.items()} for share in shares]
        self.room = [share * sum(sizes) for share in shares]
        self.left, self.trained = dict(total), Counter[Hashable]()
        self.waiting = dict.fromkeys(range(len(sizes)))
        self.held_out: set[int] = set()
        self._kinds = {repr(kind): kind for kind in total}
        self._by_rarity = [self._rarity(kind) for kind in total]
        heapq.heapify(self._by_rarity)

    def rarest(self) -> Iterator[Hashable]:
        """Give the category of which the fewest objects are left to place, as long as any are."""
        while self._by_rarity:
            rarity = heapq.heappop(self._by_rarity)
            kind = self._kinds[rarity[2]]
            if self.left[kind] and rarity == self._rarity(kind):  # nothing of it was placed since
                yield kind

    def _rarity(self, kind: Hashable) -> tuple[int, str, str]:
        return self.left[kind], str(kind), repr(kind)

    def place(self, which: int, kind: Hashable | None) -> None:
        """Give a group to the part that wants more objects of a category, then more images."""
        train, held = (
            (want.get(kind, 0.0), room) for want, room in zip(self.wanted, self.room, strict=True)
        )
        out = held > train
        self.held_out |= {which} if out else set()
        self.room[out] -= self.sizes[which]
        del self.waiting[which]
        for each, n in self.counts[which].items():
            self.wanted[out][each] -= n
            self.left[each] -= n
            heapq.heappush(self._by_rarity, self._rarity(each))
            self.trained[each] += 0 if out else n

    def move(self, which: int) -> None:
        """Hold out a group that was to be trained on."""
        self.held_out.add(which)
        self.trained.subtract(self.counts[which])

    def spare(self, which: int) -> bool:
        """Whether a group is trained on, and every category of it would be without it."""
        others = (self.trained[kind] > n for kind, n in self.counts[which].items())
        return which not in self.held_out and all(others)


def _stratified(sizes: Sequence[int], counts: Sequence[Counter[Hashable]]) -> set[int]:
    """Which groups are held out: those of the rarest category are placed first. Where rare
    categories have left less than half a fifth, groups follow that training can spare.
    """
    parts, holders = _Parts(sizes, counts), defaultdict[Hashable, list[int]](list)
    for which, count in enumerate(counts):
        for kind in count:
            holders[kind].append(which)
    for rarest in parts.rarest():
        for which in holders[rarest]:
            if which in parts.waiting:
                parts.place(which, rarest)
    for which in [*parts.waiting]:
        parts.place(which, None)
    held, enough = sum(sizes[each] for each in parts.held_out), SHARE / 2 * sum(sizes)
    for which in range(len(sizes)):
        if held < enough and parts.spare(which):
            parts.move(which)
            held += sizes[which]
    return parts.held_out


def _grouped(keys: Iterable[str]) -> list[Group]:
    groups: dict[str, Group] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def _source(name: str) -> str:
    """Name of the image that a file is a copy of."""
    path = PurePosixPath(name.replace("\\", "/"))
    return str(path.parent / _COPY.sub("", path.stem))


def _video(name: str) -> str:
    """Folder and name without the number of the frame."""
    path = PurePosixPath(_source(name))
    return str(path.parent / _without_number(path.name))


def _without_number(name: str) -> str:
    """A name without the number at its end, and what joins them (`_`, `-frame_`). No expression for
    `re`: that takes the cube of the length of names that were made for it.
    """
    end = len(name)
    while end and name[end - 1].isdecimal():
        end -= 1
    if end == len(name):
        return name
    end = _joint(name, end)
    word = next((each for each in _FRAME if name[:end].lower().endswith(each)), "")
    return name[: _joint(name, end - len(word))]


def _joint(name: str, end: int) -> int:
    """Where signs begin that end at `end` and are neither letters nor digits."""
    while end and not name[end - 1].isalnum():
        end -= 1
    return end


def _hash(name: str) -> str:
    return hashlib.sha256(_source(name).encode(errors="surrogatepass")).hexdigest()

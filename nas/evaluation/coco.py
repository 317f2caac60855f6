"""COCO metrics of detections, and of a detector over a split."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nas.data.annotation_files import read_annotations
from nas.data.coco import CocoSplit
from nas.data.dataset import DetectionItem
from nas.data.masks import encode_masks
from nas.reports import CocoMetrics
from nas.reports.metrics import BOX_METRICS, MASK_METRICS
from nas.utils.distributed import World, all_gather_object, broadcast


class SplitLosses(Protocol):
    """Adds up losses of the images that it detects objects in."""

    def detections(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """What the detector finds in each image."""

    def add(self, targets: list[dict[str, Tensor]]) -> None:
        """Add the losses of those images."""


Content = dict[str, list[dict[str, Any]]]
Array = np.ndarray
Engine = Callable[[Content, Sequence[dict[str, Any]], str], tuple[Array, Array, list[int]]]


def coco_metrics(
    ground_truth: str | Path | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    iou_type: str = "bbox",
) -> CocoMetrics:
    """COCO's twelve figures and the mAP of every class.

    Args:
        ground_truth: COCO instances, a file or its content; it is not changed.
        detections: COCO results: `image_id`, `category_id`, `bbox` (x, y, width, height in pixels)
            or `segmentation`, `score`.
        iou_type: `bbox` or `segm`. Of an object without a mask nobody knows which pixels are its
            own: for `segm` its box is as a crowd, inside which detections are neither right nor
            wrong.

    Raises:
        DataError: the ground truth cannot be read.
        ValueError: a detection on an image that the ground truth does not have.
    """
    content = (
        ground_truth if isinstance(ground_truth, dict) else read_annotations(Path(ground_truth))
    )
    image_ids = {image["id"] for image in content["images"]}
    if strangers := sorted({detection["image_id"] for detection in detections} - image_ids):
        raise ValueError(
            f"detections must be on images of the ground truth; image_id {strangers[0]} is not"
        )
    truth = numbered(content, iou_type)
    # With a box, it would be taken for a mask's area.
    results = [
        {name: value for name, value in d.items() if iou_type == "bbox" or name != "bbox"}
        for d in detections
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        stats, precision, category_ids = evaluation_engine()(truth, results, iou_type)
    names = {
        category["id"]: str(category.get("name", category["id"]))
        for category in content["categories"]
    }
    # [IoU, recall, class], all areas, 100 detections
    per_class = {
        names[category]: _mean(precision[:, :, k, 0, -1]) for k, category in enumerate(category_ids)
    }
    figures = {m.name: _fraction(stats[m.coco_index]) for m in BOX_METRICS}
    return CocoMetrics(**figures, map_per_class=per_class)


def evaluation_engine() -> Engine:
    """Choose what computes COCO's figures: hotcoco where it is installed, else pycocotools, whose
    figures are the same and which takes fifty times as long.

    Returns:
        A function of the ground truth as COCO's lists, the COCO results and `bbox` or `segm`, which
        gives the twelve figures, the precision [IoU, recall, class, area, detections] and the ids
        of the classes.
    """
    return by_pycocotools if importlib.util.find_spec("hotcoco") is None else by_hotcoco


def by_hotcoco(
    truth: Content, results: Sequence[dict[str, Any]], iou_type: str
) -> tuple[Array, Array, list[int]]:
    """Compute COCO's figures with hotcoco; arguments and result as of `evaluation_engine`."""
    scored = run_hotcoco(truth, results, iou_type)
    scored.accumulate()
    scored.summarize()
    assert scored.eval
    return np.asarray(scored.stats), scored.eval["precision"], [*scored.params.cat_ids]


def run_hotcoco(
    truth: Content, results: Sequence[dict[str, Any]], iou_type: str, iou: float | None = None
) -> Any:
    """Match detections with the ground truth.

    Args:
        truth, results, iou_type: as of `evaluation_engine`.
        iou: from which a detection is right; default: COCO's ten thresholds.

    Returns:
        hotcoco's `COCOeval`, after its `evaluate`.
    """
    from hotcoco import COCO, COCOeval

    annotated = COCO(truth)
    if results and iou_type == "bbox":  # an array is read ten times as fast
        rows = [(d["image_id"], *d["bbox"], d["score"], d["category_id"]) for d in results]
        found = annotated.load_res(np.array(rows, dtype=np.float64))
    else:
        found = annotated.load_res([*results])
    scored = COCOeval(annotated, found, iou_type)
    if iou is not None:
        scored.params.iou_thrs = [iou]
    scored.evaluate()
    return scored


def by_pycocotools(
    truth: Content, results: Sequence[dict[str, Any]], iou_type: str
) -> tuple[Array, Array, list[int]]:
    """Compute COCO's figures with pycocotools; arguments and result as of `evaluation_engine`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotated, found = COCO(), COCO()
    annotated.dataset = {"info": {}, **truth}
    annotated.createIndex()
    if results:
        found = annotated.loadRes([*results])
    else:
        found.dataset = {**truth, "annotations": []}
        found.createIndex()
    scored = COCOeval(annotated, found, iou_type)
    scored.evaluate()
    scored.accumulate()
    scored.summarize()
    return scored.stats, scored.eval["precision"], [*scored.params.catIds]


def numbered(content: Content, iou_type: str) -> Content:
    """Copy the ground truth to evaluate with, for `bbox` or `segm`: the evaluation writes into it.
    Annotations are numbered anew from 1, because 0 stands for "no match" in COCO's evaluation.
    """
    annotations = [
        {**_complete(annotation, iou_type), "id": number}
        for number, annotation in enumerate(content["annotations"], start=1)
    ]
    return {
        "images": content["images"],
        "categories": content["categories"],
        "annotations": annotations,
    }


def _complete(annotation: dict[str, Any], iou_type: str) -> dict[str, Any]:
    """An annotation with the two keys that some tools leave out, and a mask where one is needed."""
    x, y, width, height = annotation["bbox"]
    complete = {"iscrowd": 0, "area": width * height, **annotation}
    if iou_type == "bbox":
        complete.pop("segmentation", None)
    elif not annotation.get("segmentation"):
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        complete |= {"iscrowd": 1, "segmentation": [corners]}
    return complete


def _mean(precision: np.ndarray) -> float | None:
    defined = precision[precision > -1]
    return float(defined.mean()) if defined.size else None


def _fraction(value: float) -> float | None:
    return float(value) if value > -1 else None


def evaluate(
    detector: nn.Module,
    loader: DataLoader[DetectionItem],
    split: CocoSplit,
    device: torch.device,
    losses: SplitLosses | None = None,
) -> tuple[CocoMetrics, list[dict[str, Any]], float]:
    """Score a detector on a split. Several processes share the images, and all of them get the
    metrics of the whole split.

    Args:
        detector: on `device`; left in the mode it came in.
        loader: gives every image of `split` once, resized (`EvalBatches`, or a
            `DistributedBatchSampler` of them).
        split: the ground truth; boxes are scored in the pixels of its images.
        device: where to run.
        losses: adds up those of the images; None: they are not computed.

    Returns:
        The metrics, of masks too where detector and ground truth have them, the detections as COCO
        results, and the images per second of the detector alone.
    """
    mine, busy_s = detect(detector, loader, split, device, losses)
    world = World.current()
    results = [result for part in all_gather_object(world, mine) for result in part]
    masks = getattr(detector, "masks", False) and split.has_masks
    metrics = broadcast(world, _scores(split.to_coco(), results, masks) if world.first else None)
    return metrics, results, len(split.images) / world.size / max(busy_s, 1e-9)


def _scores(truth: dict[str, Any], results: list[dict[str, Any]], masks: bool) -> CocoMetrics:
    metrics = coco_metrics(truth, results)
    if not masks:
        return metrics
    segm = coco_metrics(truth, results, "segm")
    by_index = {metric.coco_index: getattr(segm, metric.name) for metric in BOX_METRICS}
    return replace(metrics, **{m.name: by_index[m.coco_index] for m in MASK_METRICS})


@torch.inference_mode()
def detect(
    detector: nn.Module,
    loader: DataLoader[DetectionItem],
    split: CocoSplit,
    device: torch.device,
    losses: SplitLosses | None = None,
) -> tuple[list[dict[str, Any]], float]:
    """Run a detector over the images of a loader, without scoring it.

    Args:
        detector: on `device`; left in the mode it came in.
        loader: gives images of `split`, resized.
        split: where they come from; boxes are returned in the pixels of its images.
        device: where to run.
        losses: adds up those of the images, which the seconds are without.

    Returns:
        The detections as COCO results in the pixels of the split's images, with `segmentation`
        where the detector has masks, and the seconds of the detector alone.
    """
    sizes = {image.id: (image.height, image.width) for image in split.images}
    categories = {label: category_id for category_id, label in split.labels.items()}
    was_training, busy_s, results = detector.training, 0.0, []
    detector.eval()
    for batch in loader:
        batch = batch.to(device)
        start = time.perf_counter()
        outputs = losses.detections(batch.images) if losses else detector(batch.images)
        scores = [output["scores"].tolist() for output in outputs]  # waits for the device
        busy_s += time.perf_counter() - start
        if losses:
            losses.add(batch.targets)
        for image, target, output, score in zip(
            batch.images, batch.targets, outputs, scores, strict=True
        ):
            image_id = int(target["image_id"])
            boxes = xywh_in(output["boxes"], image.shape[-2:], sizes[image_id])
            labels = [categories[label] for label in output["labels"].tolist()]
            rows = zip(boxes, score, labels, strict=True)
            found = [
                {"image_id": image_id, "category_id": c, "bbox": b, "score": s} for b, s, c in rows
            ]
            results += (
                _with_masks(found, output["masks"].cpu(), sizes[image_id])
                if "masks" in output
                else found
            )
    detector.train(was_training)
    return results, busy_s


def _with_masks(
    found: list[dict[str, Any]], masks: Tensor, size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Detections with their masks [N, M, M] in the pixels of their image added."""
    x, y, width, height = (
        torch.tensor([each["bbox"] for each in found]).reshape(-1, 4).unbind(dim=1)
    )
    codes = encode_masks(masks, torch.stack([x, y, x + width, y + height], dim=1), size)
    return [{**each, "segmentation": code} for each, code in zip(found, codes, strict=True)]


def xywh_in(boxes: Tensor, seen: Sequence[int], original: Sequence[int]) -> list[list[float]]:
    """Convert boxes of a resized image to the form and the size of the ground truth.

    Args:
        boxes: [N, 4], x1, y1, x2, y2 in pixels of the resized image.
        seen: height and width of the resized image.
        original: height and width of the image itself.

    Returns:
        N lists of x, y, width, height in pixels of the image itself.
    """
    scale = torch.tensor([original[1] / seen[1], original[0] / seen[0]] * 2, dtype=torch.float64)
    corners = boxes.double().cpu() * scale
    return torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1).tolist()

"""A search as one would write it by hand: Ray Tune over given layouts, torchvision's FCOS around
our backbones, a loop as in torchvision's references, pycocotools after each epoch.

    python -W ignore benchmarks/torchvision_search.py --data DIR --epochs 4 C1-C1-T2-T1@16 ...

It prints mAP by layout as JSON. `benchmarks/by_hand.py` compares it with `nas-submit`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

BATCH, LR = 8, 2e-3


def detector(layout: str, channels: int, classes: int, image_size: int) -> Any:
    """torchvision's FCOS on the last three maps of a backbone and two levels more."""
    import torch
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from nas.models.backbones import build_backbone
    from search_spaces.layout import Layout

    class Backbone(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            parsed, self.out_channels = Layout.parse(layout), channels
            self.body = build_backbone(parsed)
            extra = LastLevelP6P7(channels, channels)
            self.fpn = FeaturePyramidNetwork(list(parsed.widths[1:]), channels, extra)

        def forward(self, images: Any) -> Any:
            maps = self.body(images)[-3:]
            return self.fpn({str(level): each for level, each in enumerate(maps)})

    anchors = AnchorGenerator(tuple((s,) for s in (8, 16, 32, 64, 128)), ((1.0,),) * 5)
    sizes = {"min_size": image_size, "max_size": image_size * 1333 // 800}
    return FCOS(Backbone(), classes, anchor_generator=anchors, **sizes)


def loader(data: str, split: str, training: bool) -> Any:
    """Batches of a split, by torchvision's data set."""
    import torch
    from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
    from torchvision.transforms import v2

    flip = [v2.RandomHorizontalFlip(0.5)] if training else []
    steps = [v2.ToImage(), *flip, v2.ToDtype(torch.float32, scale=True), v2.ToPureTensor()]
    images = CocoDetection(
        f"{data}/{split}", f"{data}/instances_{split}.json", transforms=v2.Compose(steps)
    )
    wrapped = wrap_dataset_for_transforms_v2(images, target_keys=["boxes", "labels", "image_id"])
    return torch.utils.data.DataLoader(
        wrapped,
        BATCH,
        shuffle=training,
        drop_last=training,
        collate_fn=lambda x: tuple(zip(*x, strict=True)),
    )


def scored(network: Any, batches: Any, truth: Any) -> float:
    """mAP by pycocotools."""
    import torch
    from pycocotools.cocoeval import COCOeval
    from torchvision.ops import box_convert

    found = []
    with torch.no_grad():
        for images, targets in batches:
            for output, target in zip(network(list(images)), targets, strict=True):
                boxes = box_convert(output["boxes"], "xyxy", "xywh").tolist()
                rows = zip(boxes, output["labels"].tolist(), output["scores"].tolist(), strict=True)
                found += [
                    {"image_id": target["image_id"], "bbox": b, "category_id": c, "score": s}
                    for b, c, s in rows
                ]
    if not found:
        return 0.0
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def train(config: dict[str, Any]) -> None:
    """One training by hand."""
    import torch
    from pycocotools.coco import COCO
    from ray import tune
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(config["seed"])
    with contextlib.redirect_stdout(io.StringIO()):
        train_batches, val = (loader(config["data"], s, s == "train") for s in ("train", "val"))
        truth = COCO(f"{config['data']}/instances_val.json")
    classes = 1 + max(truth.getCatIds())
    network = detector(config["layout"], config["channels"], classes, config["image_size"])
    optimizer = torch.optim.AdamW(network.parameters(), LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LR, total_steps=len(train_batches) * config["epochs"], pct_start=0.1
    )
    for _ in range(config["epochs"]):
        network.train()
        for images, targets in train_batches:
            full = [index for index, target in enumerate(targets) if "boxes" in target]
            losses = network([images[i] for i in full], [targets[i] for i in full])
            optimizer.zero_grad()
            sum(losses.values()).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        with contextlib.redirect_stdout(io.StringIO()):
            found = scored(network.eval(), val, truth)
        tune.report({"map": found})


def search(arguments: argparse.Namespace) -> None:
    """Train all layouts under Ray Tune, and print their scores."""
    import ray
    from ray import tune

    cores = os.cpu_count() or 1
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="error")
    fixed = {
        name: getattr(arguments, name) for name in ("epochs", "image_size", "channels", "seed")
    }
    space = {
        **fixed,
        "data": str(arguments.data.resolve()),
        "layout": tune.grid_search(arguments.layouts),
    }
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(train, {"cpu": 1}),
            param_space=space,
            tune_config=tune.TuneConfig(max_concurrent_trials=cores),
            run_config=tune.RunConfig(verbose=0, storage_path=folder),
        ).fit()
    if results.errors:
        raise results.errors[0]
    print(json.dumps({r.config["layout"]: r.metrics["map"] for r in results}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("layouts", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    search(parser.parse_args())


if __name__ == "__main__":
    main()

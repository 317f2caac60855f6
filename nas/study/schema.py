"""What a study and its trials carry beside Optuna's own fields: every name, what it means, in which
unit.

`nas.search` writes nothing that is not listed here. Scores are fractions from 0 to 1; None stands
for what the hardware or the ground truth does not have. `docs/reference.md` is made from this
module.
"""

from __future__ import annotations

from nas.reports.metrics import BOX_PRECISIONS, MASK_METRICS, TEST_METRICS

# The environment variable with the database's URL; where the URL has a password, other users of the
# machine would see that among the arguments of a process.
STORAGE_VARIABLE = "NAS_STORAGE"

TRIAL: dict[str, str] = {
    "layout": "the backbone, in the text form that `Layout.parse` reads, for example "
    "C2-C2-T12-T4@64",
    "layout_id": "twelve hexadecimal digits, the same for layouts that build the same network",
    "role": "why the trial is in the study: `candidate` (suggested by the sampler and trained "
    "here), `taken over` (result of an earlier study), `baseline` (a published backbone at the "
    "same memory) or `replicate` (one of the best candidates, trained once more)",
    "replicate": "0 for the first training of a layout, 1 and up for its repetitions; it is added "
    "to the seed of the search",
    "detector": "name of the detector",
    "params": "number of parameters of the whole detector",
    "flops": "multiply-adds for one image of the largest batch shape, attention products included",
    "memory_predicted_gib": "predicted peak of allocated GPU memory in a training step, GiB",
    "memory_parts_gib": "what that prediction consists of before it is corrected by measurements, "
    "GiB: parameters, optimizer state and other parts, and what the activations of stem, stage_1 "
    "to stage_4, neck and head take at the peak",
    "memory_peak_gib": "measured peak of allocated GPU memory, GiB; None on the CPU",
    **{metric.name: metric.description for metric in BOX_PRECISIONS},
    "map_per_class": "mAP on the validation split by class name",
    **{metric.name: metric.description for metric in MASK_METRICS},
    "test_map": "COCO mAP on the test split, which no decision looks at, after the last epoch; the "
    "`test_` figures are there only where the data set has such a split",
    "test_map_50": "mAP on the test split at IoU 0.50",
    "test_map_segm": "mAP of instance masks on the test split, where the detector learns masks",
    "test_map_segm_50": "mAP of instance masks on the test split at IoU 0.50",
    "latency_ms": "milliseconds that the backbone takes for one image of the largest batch, "
    "measured before the candidate is trained, on what `nas_latency` of the study says; only where "
    "the search looks at latency",
    "fps": "images a second of the detector alone, in evaluation",
    "epochs": "how many epochs have been trained",
    "losses": "mean training loss of each epoch, by its number",
    "val_losses": "mean loss of the validation split after each epoch, by its number, of the "
    "weights that are scored",
    "kept_epoch": "the epoch whose weights are kept and whose scores the trial has: the last one, "
    "or with `recipe.keep: best` and `best_and_last` the one with the highest mAP on the "
    "validation split, which chose it",
    "train_s": "seconds of training, evaluation not counted",
    "gpu_s": "seconds on the worker, evaluation included, times the share of GPUs that the trial "
    "has; 0 on the CPU",
    "device": "`cpu` or the name of the GPU",
    "hardware": "the device, the name of the processor and the number of threads that trained on "
    "it",
    "seed": "seed of initialisation, order of the data and augmentation",
    "calibration": "what calibration measured and set before training; None where it is off",
    "checkpoint": "path of the detector's weights (safetensors) of a completed trial; the file is "
    "kept for the best few trials only",
    "origin": "of a result that was taken over: the earlier study and the trial there",
    "fail_reason": "why the trial failed",
    "worker_deaths": "how many worker processes died in a row with the trial; only where that made "
    "it fail",
    "infeasible_reason": "why the trial counts as over the budget, with the measured memory",
}
EXPORTED = (
    *(metric.name for metric in BOX_PRECISIONS if metric.exported),
    "map_per_class",
    *(metric.name for metric in MASK_METRICS if metric.exported),
    *(metric.test_name for metric in TEST_METRICS),
    "params",
    "flops",
    "memory_predicted_gib",
    "memory_peak_gib",
    "latency_ms",
    "fps",
    "epochs",
    "kept_epoch",
    "train_s",
    "gpu_s",
    "device",
)  # attributes of a trial that the model card of its bundle states, in this order

STUDY: dict[str, str] = {
    "nas_uuid": "identifies the study, also where its name is used again later",
    "nas_spec": "the complete request of the last submission, without the password of the storage",
    "nas_data": "the data set in a few figures: fingerprint, categories, numbers of images and "
    "boxes, largest batch shape, what was repaired or left out",
    "nas_budget_gib": "the memory budget, GiB",
    "nas_latency": "what latency is measured on: device, version of the runtime, image_size "
    "(height and width in pixels); only where the search looks at latency",
    "nas_baselines": "the published backbones that are trained beside the candidates: name, layout "
    "at the memory of the search, memory_predicted_gib",
    "nas_memory_correction": "how measured trials correct the prediction of memory: scale, "
    "offset_bytes, the device and the number of trials that they come from",
    "nas_cost_predicted": "what a dry run of the same request on this machine predicted, times in "
    "seconds and hours, without the single measurements; only where there was one before the "
    "search",
    "nas_time": "how the time limit is divided: limit_s, search_until_s (seconds of all commands "
    "together after which the search is over), the division, the typical layout and what it was "
    "predicted to take; only with a time limit",
    "nas_commands": "when each command of a search with a time limit began and was last seen, "
    "seconds since 1970",
    "nas_winner": "what was trained in full after the search: layout, epochs, limit_s, the folder "
    "of its bundle, and whether it is done",
    "nas_versions": "versions of scratch-nas, Python, torch, torchvision, optuna and, where it is "
    "installed, Ray",
    "nas_git_commit": "commit of the scratch-nas checkout; None where it is installed without one",
    "nas_refusals": "suggestions that were not trained, by reason: over_budget, unequal (no layout "
    "like them uses the budget), repeated (trained already); the smallest memory that was over the "
    "budget; patterns that cannot use the budget, with the layout of each that comes nearest",
    "nas_proxy_check": "what `nas proxy-check` found: for the proxy and for the full training, "
    "study, recipe, epochs, image_size and seed; pairs (for each layout its FLOPs, both mAP and "
    "both training times in seconds); Kendall's tau, tau_low, tau_high; top_recall by k; proxy_s, "
    "full_s and cost_ratio over all layouts; verdict, the rule behind it, text; layouts left_out, "
    "with reasons; versions",
}

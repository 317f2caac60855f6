"""What a study and its trials carry beside Optuna's own fields: every name, what it means, in which
unit.

`nas.search.search` writes nothing that is not listed here. Scores are fractions 0 to 1; None stands
for what the hardware or the ground truth does not have.
"""

from __future__ import annotations

TRIAL: dict[str, str] = {
    "layout": "the candidate, in the text form that `Layout.parse` reads",
    "layout_id": "twelve hexadecimal digits, equal for equal networks",
    "role": "why it is here: candidate (suggested, trained here), taken over (from an earlier "
    "study), baseline (a published "
    "backbone at the same memory) or replicate (one of the best, once more)",
    "replicate": "0, or which repetition of the same layout; its seed is that of the search plus "
    "this",
    "detector": "name of the detector",
    "params": "parameters of the detector, all of them",
    "flops": "multiply-adds of one image of the largest batch shape, attention products included",
    "memory_predicted_gib": "predicted peak of allocated memory of a training step, GiB",
    "memory_parts_gib": "what the prediction consists of before corrections, GiB: parameters, "
    "optimizer and others, and "
    "what the activations of stem, stage_1 to stage_4, neck and head take at the peak",
    "memory_peak_gib": "measured peak of allocated memory, GiB; None on the CPU",
    "map": "COCO mAP (IoU 0.50 to 0.95) on the validation split after the last epoch so far",
    "map_50": "the same at IoU 0.50",
    "map_75": "the same at IoU 0.75",
    "map_small": "mAP of objects below 32 x 32 pixels",
    "map_medium": "mAP of objects from 32 x 32 to 96 x 96 pixels",
    "map_large": "mAP of larger objects",
    "map_per_class": "mAP by class name",
    "map_segm": "the same mAP of instance masks; these six only where the detector learns masks",
    "map_segm_50": "that at IoU 0.50",
    "map_segm_75": "that at IoU 0.75",
    "map_segm_small": "that of objects below 32 x 32 pixels",
    "map_segm_medium": "that of objects from 32 x 32 to 96 x 96 pixels",
    "map_segm_large": "that of larger objects",
    "test_map": "mAP on the test split, which chose nothing, after the last epoch; only where "
    "there is such a split",
    "test_map_50": "the same at IoU 0.50",
    "test_map_segm": "mAP of instance masks on the test split, where the detector learns masks",
    "test_map_segm_50": "the same at IoU 0.50",
    "fps": "images a second of the detector alone, in evaluation",
    "epochs": "epochs trained",
    "train_s": "seconds of training, evaluation not counted",
    "gpu_s": "seconds on the worker, evaluation included, times its share of GPUs",
    "device": "cpu or the name of the GPU",
    "hardware": "that, the processor's name and the number of threads that trained on it",
    "seed": "of initialisation, data order and augmentation",
    "calibration": "what gradient calibration measured and did; None where it is off",
    "checkpoint": "path of the detector's weights (safetensors); None where they were not kept",
    "origin": "of a result that was taken over: the earlier study and its trial",
    "fail_reason": "why the trial is FAIL",
    "infeasible_reason": "why the trial counts as over the budget, with the measured figure",
}

STUDY: dict[str, str] = {
    "nas_uuid": "identifies the study even if its name is used again",
    "nas_spec": "the complete request of the last submission",
    "nas_data": "figures of the data set: fingerprint, categories, counts, largest batch shape, "
    "repairs",
    "nas_budget_gib": "the memory budget, GiB",
    "nas_baselines": "the published backbones beside the candidates: name, layout at the search's "
    "memory, memory_predicted_gib",
    "nas_memory_correction": "what measured trials put on the prediction: scale, offset_bytes, on "
    "which device, from how many",
    "nas_cost_predicted": "what a dry run on this machine predicted for this request, in seconds "
    "and hours (see "
    "`nas.search.forecast.forecast.forecast`); only where there was one before the search",
    "nas_versions": "of scratch-nas, Python, torch, torchvision, optuna and, where it ran, Ray",
    "nas_git_commit": "of the scratch-nas checkout, None where it is installed without one",
    "nas_refusals": "suggestions that were not trained: over_budget, unequal (nothing like them "
    "uses the budget), repeated; "
    "the nearest figure over the budget; patterns that cannot use the budget, with the nearest "
    "layout",
    "nas_proxy_check": "what `nas proxy-check` found: of the proxy and the fuller training study, "
    "recipe, epochs, image_size, "
    "seed; pairs (of each layout FLOPs, both mAP, both times of training in seconds); tau, "
    "tau_low, tau_high; top_recall by k; "
    "proxy_s, full_s and cost_ratio of all layouts; verdict, the rule behind it, text; left_out, "
    "with reasons; versions",
}

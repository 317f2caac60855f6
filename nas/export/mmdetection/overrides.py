"""Where our detectors compute otherwise than mmdetection can be configured to: the code that is
written into a bundle for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from nas.config.sections import DetectorSpec


@dataclass(frozen=True)
class Part:
    """Code of a bundle.

    Args:
        reason: a sentence for the README, on what mmdetection computes otherwise.
        imports: lines of imports.
        code: classes, after two empty lines each.
    """

    reason: str
    imports: str
    code: str


RESIZE = Part(
    "Images are resized by PyTorch's antialiased filter on bytes; OpenCV and Pillow give other "
    "pixels.",
    """
import numpy as np
import torch
from mmcv.image import rescale_size
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS
from torch.nn.functional import interpolate""",
    '''
@TRANSFORMS.register_module()
class ScratchNasResize(Resize):
    """Resizes by PyTorch's antialiased filter on bytes."""

    def _resize_img(self, results):
        height, width = results["img"].shape[:2]
        size = [max(1, side) for side in rescale_size((width, height), results["scale"])]
        pixels = torch.from_numpy(np.ascontiguousarray(results["img"])).permute(2, 0, 1)
        resized = interpolate(pixels[None], size[::-1], mode="bilinear", antialias=True)[0]
        results["img"] = np.ascontiguousarray(resized.permute(1, 2, 0).numpy())
        results["img_shape"] = tuple(size[::-1])
        results["scale_factor"] = (size[0] / width, size[1] / height)
        results["keep_ratio"] = True
''',
)
ANCHORS = Part(
    "Sides of anchors are rounded as torchvision rounds them.",
    """
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS""",
    '''
@TASK_UTILS.register_module()
class ScratchNasAnchors(AnchorGenerator):
    """Anchors whose corners, seen from their centre, are whole pixels."""

    def gen_single_level_base_anchors(self, *args, **kwargs):
        return super().gen_single_level_base_anchors(*args, **kwargs).round()
''',
)
_SCORES_IMPORTS = "\nimport torch\nfrom mmdet.registry import MODELS"
_SCORES = '''

def joint_logits(classes, centerness):
    """Logits of what detections are ranked by: the root of class times centerness."""
    pairs = zip(classes, centerness)
    return [torch.logit((c.sigmoid() * near.sigmoid()).sqrt()) for c, near in pairs]
'''
FCOS = Part(
    "Locations are multiples of the stride, without mmdetection's half; a score is the root of "
    "class times centerness, and both the threshold and the best 1000 of a level go by it.",
    _SCORES_IMPORTS
    + """
from mmdet.models.dense_heads import FCOSHead
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator""",
    _SCORES
    + '''

@MODELS.register_module()
class ScratchNasFCOSHead(FCOSHead):
    """Locations are multiples of the stride; a score is the root of class times centerness."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.prior_generator = MlvlPointGenerator(self.strides, offset=0)

    def predict_by_feat(self, cls_scores, bbox_preds, score_factors=None, **kwargs):
        joint = joint_logits(cls_scores, score_factors)
        return super().predict_by_feat(joint, bbox_preds, None, **kwargs)
''',
)
ATSS = Part(
    "A score is the root of class times centerness, and must be above the threshold as the class "
    "alone must.",
    _SCORES_IMPORTS + "\nfrom mmdet.models.dense_heads import ATSSHead",
    _SCORES
    + '''

@MODELS.register_module()
class ScratchNasATSSHead(ATSSHead):
    """A score is the root of class times centerness."""

    def predict_by_feat(self, cls_scores, bbox_preds, score_factors=None, **kwargs):
        least = self.test_cfg["score_thr"]
        enough = [c.masked_fill(c.sigmoid() <= least, -torch.inf) for c in cls_scores]
        joint = joint_logits(enough, score_factors)
        return super().predict_by_feat(joint, bbox_preds, None, **kwargs)
''',
)
CASCADE = Part(
    "A score is the mean of the three stages' probabilities; mmdetection averages their logits.",
    """
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.registry import MODELS""",
    '''
@MODELS.register_module()
class ScratchNasCascadeBBoxHead(ConvFCBBoxHead):
    """Gives probabilities, which the cascade averages, where the published head gives logits."""

    def forward(self, x):
        classes, boxes = super().forward(x)
        return (classes if self.training else classes.softmax(dim=1)), boxes

    def _predict_by_feat_single(self, roi, cls_score, *args, **kwargs):
        return super()._predict_by_feat_single(roi, cls_score.log(), *args, **kwargs)
''',
)
MASKS = Part(
    "Masks are drawn into boxes of whole pixels, by torchvision.",
    """
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from torchvision.models.detection.roi_heads import paste_masks_in_image
import torch""",
    '''
@MODELS.register_module()
class ScratchNasMaskHead(FCNMaskHead):
    """Draws masks as torchvision does, into boxes of whole pixels."""

    def _predict_by_feat_single(
        self, mask_preds, bboxes, labels, img_meta, rcnn_test_cfg, rescale=False, activate_map=False
    ):
        masks = mask_preds if activate_map else mask_preds.sigmoid()
        if rescale:
            bboxes /= bboxes.new_tensor(img_meta["scale_factor"]).repeat(1, 2)  # in place, as there
        size = img_meta["ori_shape" if rescale else "img_shape"][:2]
        chosen = bboxes.new_tensor(masks)[torch.arange(len(labels)), labels][:, None]
        return paste_masks_in_image(chosen, bboxes, size)[:, 0] >= rcnn_test_cfg.mask_thr_binary
''',
)
SPARSE = Part(
    "A stage may change a box's sides up to 6250-fold, mmdetection's limit is 62.5; boxes are cut "
    "off at the border of the image, and those outside are left out.",
    """
from mmdet.models.roi_heads import SparseRoIHead
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from mmdet.registry import MODELS, TASK_UTILS""",
    '''
@TASK_UTILS.register_module()
class ScratchNasBBoxCoder(DeltaXYWHBBoxCoder):
    """Boxes whose sides a stage may change up to 100,000 / 16 times."""

    def decode(self, bboxes, pred_bboxes, max_shape=None, wh_ratio_clip=16 / 100_000):
        return super().decode(bboxes, pred_bboxes, max_shape, wh_ratio_clip)


@MODELS.register_module()
class ScratchNasSparseRoIHead(SparseRoIHead):
    """Cuts boxes off at the border of the image."""

    def predict_bbox(self, x, batch_img_metas, rpn_results_list, rcnn_test_cfg, rescale=False):
        given = (x, batch_img_metas, rpn_results_list, rcnn_test_cfg)
        found = super().predict_bbox(*given, rescale=rescale)
        return [
            self._inside(each, meta["ori_shape" if rescale else "img_shape"])
            for each, meta in zip(found, batch_img_metas)
        ]

    def _inside(self, found, shape):
        found.bboxes[:, 0::2] = found.bboxes[:, 0::2].clamp(0, shape[1])
        found.bboxes[:, 1::2] = found.bboxes[:, 1::2].clamp(0, shape[0])
        kept = (found.bboxes[:, 2:] > found.bboxes[:, :2]).all(dim=1)
        least = self.test_cfg.score_thr
        return found[kept & (found.scores > least) if least else kept]
''',
)
_OF_DETECTOR = {
    "fcos": (FCOS,),
    "atss": (ANCHORS, ATSS),
    "faster_rcnn": (ANCHORS,),
    "cascade_mask_rcnn": (ANCHORS, CASCADE),
    "sparse_rcnn": (SPARSE,),
}


def of_detector(spec: DetectorSpec, *, known: bool) -> tuple[Part, ...]:
    """List the parts that a detector needs.

    Args:
        spec: the detector.
        known: whether mmdetection has it; otherwise only the images are treated.
    """
    if not known:
        return (RESIZE,)
    return (RESIZE, *_OF_DETECTOR[spec.name], *((MASKS,) if spec.learns_masks else ()))

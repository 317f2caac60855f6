"""Crops and augmentation of images for classification, by torchvision's transforms.

In training, `light` is a random crop of 8 to 100 % of the area and a flip (Szegedy et al., CVPR
2015; He et al., CVPR 2016). `strong` adds TrivialAugment (Mueller & Hutter, ICCV 2021) to every
image, random erasing (Zhong et al., AAAI 2020) to a quarter of them, and mixup (Zhang et al., ICLR
2018) or cutmix (Yun et al., ICCV 2019), by turns, to every batch. Scored is the central crop of an
image whose short side is 256/224 of the crop's.
"""

from __future__ import annotations

from torchvision.transforms import InterpolationMode, v2

from nas.config.pretraining import PretrainingRecipe

RESIZE_RATIO = 256 / 224  # short side of a scored image over the side of its crop
ERASE_PROBABILITY, MIXUP_ALPHA, CUTMIX_ALPHA = 0.25, 0.8, 1.0  # Swin's
GREY = (124, 116, 104)  # ImageNet's mean colour, which is 0 to the network


def train_transform(recipe: PretrainingRecipe) -> v2.Transform:
    """Build the augmentation of training: 8-bit images [3, H, W] to [3, S, S]; it draws."""
    crop = v2.RandomResizedCrop(
        recipe.image_size, interpolation=InterpolationMode.BICUBIC, antialias=True
    )
    steps: list[v2.Transform] = [crop, v2.RandomHorizontalFlip(recipe.flip)]
    if recipe.augment == "strong":
        # Of tensors torchvision can turn and shear with these two interpolations only: nearest and
        # bilinear.
        steps += [
            v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR),
            v2.RandomErasing(ERASE_PROBABILITY, value=GREY),
        ]
    return v2.Compose(steps)


def eval_transform(recipe: PretrainingRecipe) -> v2.Transform:
    """Build the central crop of evaluation: 8-bit images [3, H, W] to [3, S, S]; it draws
    nothing.
    """
    size = int(recipe.image_size * RESIZE_RATIO)
    return v2.Compose(
        [
            v2.Resize(size, interpolation=InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(recipe.image_size),
        ]
    )


def mixup_or_cutmix(num_classes: int) -> v2.Transform:
    """Build the transform that blends the images of a batch in pairs, by mixup or cutmix.

    It takes images [B, 3, S, S] and classes [B], and gives images and shares [B, num_classes].
    """
    return v2.RandomChoice(
        [
            v2.MixUp(alpha=MIXUP_ALPHA, num_classes=num_classes),
            v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=num_classes),
        ]
    )

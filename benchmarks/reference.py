"""The reference implementation of `step` and `e2e`: what upstream does, from the same initial weights as headsweep.

A loop over branches (tests/heads/oracle.py), attention with explicit weights, torch's AdamW with default options, and
images through Pillow, timm and torchvision in the processes of a DataLoader.
"""

# b images, c channels, n tokens, d width, h heads

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import Mixup, RandomResizedCropAndInterpolation, rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "heads"))
import oracle

from headsweep.config import AugmentationConfig, AugmentationOrder, DatasetConfig, RunConfig
from headsweep.models.build import model_of
from headsweep.models.classifier import Classifier
from headsweep.models.compact.block import SelfAttention


class ExplicitAttention(nn.Module):
    """Self-attention whose weights are formed, dropped out and multiplied."""

    def __init__(self, fused: SelfAttention) -> None:
        super().__init__()
        self.heads, self.rate = fused.heads, fused.attention_dropout
        self.qkv, self.proj, self.proj_drop = fused.qkv, fused.proj, fused.proj_drop

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        mixed = F.dropout(weights, self.rate, self.training) @ value
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class ReferenceModel(nn.Module):
    """A model rewritten with loops over branches, from its weights; returns the logits of each branch."""

    def __init__(self, model: Classifier, head: str) -> None:
        super().__init__()
        for block in model.backbone.blocks:
            block.attention = ExplicitAttention(block.attention)
        self.backbone, self.head = model.backbone, oracle.reference(head, model.head)

    def forward(self, images: Tensor, per_head: bool = True) -> Tensor:
        return self.head(self.backbone(images))


def reference_model(run: RunConfig) -> ReferenceModel:
    return ReferenceModel(model_of(run), run.head.name)


def reference_optimizer(model: nn.Module, run: RunConfig) -> torch.optim.AdamW:
    """AdamW, without weight decay of one-dimensional parameters."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": run.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=run.optimizer.lr)


def default_determinism() -> None:
    """Allow non-deterministic kernels, which torch does by default and a run of headsweep forbids."""
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)


class PillowImages(Dataset):
    """Images (n c y x) of uint8 as Pillow images, transformed."""

    def __init__(self, images: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.images = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in images]
        self.labels, self.transform = labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        while True:
            try:
                return self.transform(self.images[index]), self.labels[index]
            except ValueError:  # timm's RandAugment passes Pillow 0 bits, about twice in 1,000 images
                continue


class ReferenceBatches:
    """Iterates over training batches: (images, soft targets) on the device."""

    def __init__(self, images: Tensor, labels: Tensor, run: RunConfig, device: torch.device, workers: int) -> None:
        recipe, dataset = run.augmentation, run.dataset
        self.device, self.classes, self.smoothing = device, dataset.num_classes, recipe.label_smoothing
        self.mix = Mixup(
            recipe.mixup,
            recipe.cutmix,
            prob=recipe.mix_probability,
            label_smoothing=recipe.label_smoothing,
            num_classes=dataset.num_classes,
        )
        self.mixes = recipe.mix_probability > 0
        self.loader = DataLoader(
            PillowImages(images, labels, pillow_transform(recipe, dataset)),
            run.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            if self.mixes:
                yield self.mix(images, labels)
            else:
                off, on = self.smoothing / self.classes, 1 - self.smoothing + self.smoothing / self.classes
                targets = torch.full((len(labels), self.classes), off, device=self.device)
                yield images, targets.scatter_(1, labels[:, None], on)


def pillow_transform(recipe: AugmentationConfig, dataset: DatasetConfig) -> transforms.Compose:
    """Crop, flip, RandAugment, normalization and erasing of timm and torchvision, in the order of the recipe."""
    size = dataset.image_size
    crop = [RandomResizedCropAndInterpolation(size, recipe.crop_scale, recipe.crop_ratio, "bicubic")]
    crop = crop if recipe.crop_scale else []
    others = [transforms.RandomHorizontalFlip(recipe.flip)] if recipe.flip else []
    if recipe.randaugment:
        others.append(rand_augment_transform(recipe.randaugment, {"img_mean": (128,) * dataset.channels}))
    first = recipe.order is AugmentationOrder.crop_first
    last = [transforms.ToTensor(), transforms.Normalize(dataset.mean, dataset.std)]
    if recipe.erasing:
        last.append(RandomErasing(recipe.erasing, max_count=recipe.erasing_count, device="cpu"))
    return transforms.Compose([*(crop + others if first else others + crop), *last])

"""The slow side of `step` and `e2e`: what upstream does, from the same first weights as ours.

A loop over branches (tests/heads/oracle.py), attention with its weights written out, torch's AdamW as it comes, and
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
from headsweep.models.compact import SelfAttention


class PlainAttention(nn.Module):
    """Self-attention whose weights are formed, dropped out and multiplied."""

    def __init__(self, ours: SelfAttention) -> None:
        super().__init__()
        self.heads, self.rate = ours.heads, ours.attention_dropout
        self.qkv, self.proj, self.proj_drop = ours.qkv, ours.proj, ours.proj_drop

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        mixed = F.dropout(weights, self.rate, self.training) @ value
        return self.proj_drop(self.proj(mixed.transpose(1, 2).flatten(2)))


class PlainModel(nn.Module):
    """The model of a run, loops and all; always the logits of each branch."""

    def __init__(self, run: RunConfig) -> None:
        super().__init__()
        model = model_of(run)
        for block in model.backbone.blocks:
            block.attention = PlainAttention(block.attention)
        self.backbone, self.head = model.backbone, oracle.reference(run.head.name, model.head)

    def forward(self, images: Tensor, per_head: bool = True) -> Tensor:
        return self.head(self.backbone(images))


def plain_optimizer(model: nn.Module, run: RunConfig) -> torch.optim.AdamW:
    """AdamW, with no decay of one-dimensional parameters."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": run.optimizer.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=run.optimizer.lr)


def as_it_comes() -> None:
    """Let torch take the kernels of a process that asked for nothing, whatever a run of ours has asked for before."""
    torch.backends.cudnn.deterministic = False
    torch.use_deterministic_algorithms(False)


class Pictures(Dataset):
    """Images of (n c y x) uint8 as Pillow holds them, through a transform."""

    def __init__(self, images: Tensor, labels: Tensor, transform: transforms.Compose) -> None:
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy()) for image in images]
        self.labels, self.transform = labels, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        while True:
            try:
                return self.transform(self.pictures[index]), self.labels[index]
            except ValueError:  # timm's RandAugment asked Pillow for 0 bits, about twice in 1,000 images
                continue


class PlainBatches:
    """Training batches of Pillow images: (images, soft targets) on the device."""

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
            Pictures(images, labels, pil_transform(recipe, dataset)),
            run.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type == "cuda",
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            on_device, there = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
            if self.mixes:
                yield self.mix(on_device, there)
            else:
                off, on = self.smoothing / self.classes, 1 - self.smoothing + self.smoothing / self.classes
                yield (
                    on_device,
                    torch.full((len(there), self.classes), off, device=self.device).scatter_(1, there[:, None], on),
                )


def pil_transform(recipe: AugmentationConfig, dataset: DatasetConfig) -> transforms.Compose:
    """Crop, flip, RandAugment, normalisation and erasing by timm and torchvision, in the order of the recipe."""
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

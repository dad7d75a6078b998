"""The schema: every configuration key, its type, what it affects, and the rules between keys; data in `data.py`.

The YAML files in `conf/` hold all values; the dataclasses here have no defaults, so that a value is in one place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from headsweep.config.checks import address, at_least, name
from headsweep.config.data import AugmentationConfig, DatasetConfig
from headsweep.config.duration import Duration, DurationUnit
from headsweep.config.records.head import GramConfig, HeadConfig
from headsweep.config.records.head_file import spec_of
from headsweep.config.records.model import (
    AttentionKernel,
    BackboneMode,
    CompactConfig,
    ModelConfig,
    ResidualPrecision,
    TokensConfig,
    TokenType,
)
from headsweep.config.traits import DATA, MEMORY, NOTHING, PACE, RESULT, SHARED, SUMMARY, USUAL, Neutral
from headsweep.credentials import store_password
from headsweep.errors import ConfigError


class Precision(Enum):
    """Autocast type of the forward pass; `auto` is bfloat16 on a GPU and float32 on a CPU."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"

    def on(self, device: str) -> Precision:
        """Resolve `auto` for a run that begins on a kind of device: `cuda`, `cpu` or `mps`.

        It does not depend on a CPU's units: all CPUs compute a run alike, up to rounding.
        """
        if self is not Precision.auto:
            return self
        return Precision.bfloat16 if device == "cuda" else Precision.float32


class Compilation(Enum):
    """What torch.compile compiles; `auto` is `step` on a GPU for runs that are long enough to gain by it."""

    auto = "auto"
    off = "off"
    blocks = "blocks"  # the repeated block of the backbone, compiled once
    step = "step"  # forward pass, objective and backward pass; CUDA graphs on a GPU


class ScheduleName(Enum):
    """Shape of the learning rate after the warm-up."""

    cosine = "cosine"
    constant = "constant"


class TrackingName(Enum):
    """The tracker to which metrics are mirrored."""

    mlflow = "mlflow"
    none = "none"


@dataclass
class OptimizerConfig:
    """An optimizer of timm's factory; decay is never applied to parameters that are one-dimensional per head."""

    name: Annotated[str, RESULT | MEMORY | SUMMARY]  # a name that timm.optim.list_optimizers() knows
    lr: Annotated[float, RESULT | SUMMARY]
    weight_decay: Annotated[float, RESULT | SUMMARY]
    betas: Annotated[list[float] | None, RESULT]
    eps: Annotated[float | None, RESULT]
    momentum: Annotated[float | None, RESULT | MEMORY]
    backbone_lr_scale: Annotated[float, RESULT, Neutral(1.0)]  # learning rate of the backbone, as a multiple of lr

    def __post_init__(self) -> None:
        for key in ("lr", "backbone_lr_scale"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"optimizer.{key}", getattr(self, key), "expected a number > 0")
        if self.weight_decay < 0:
            raise ConfigError("optimizer.weight_decay", self.weight_decay, "expected a number >= 0")


@dataclass
class ScheduleConfig:
    """Learning rate by step: a linear warm-up, then the named shape."""

    name: ScheduleName
    warmup: str  # a duration, e.g. "10 epochs" or "5 percent" (of the run)
    warmup_lr: float  # where the warm-up starts
    min_lr: float  # where the cosine ends

    def __post_init__(self) -> None:
        Duration.parse("schedule.warmup", self.warmup)
        for key in ("warmup_lr", "min_lr"):
            if getattr(self, key) < 0:
                raise ConfigError(f"schedule.{key}", getattr(self, key), "expected a number >= 0")


@dataclass
class TrackingConfig:
    """Where metrics are mirrored."""

    name: TrackingName
    uri: str | None  # None: sqlite in paths.output
    experiment: str
    models: bool  # log the model of each finished run

    def __post_init__(self) -> None:
        self.uri = self.uri and store_password(self.uri)
        if self.uri is not None and not re.match(r"(https?|(sqlite|postgresql|mysql|mssql)(\+\w+)?)://", self.uri):
            raise ConfigError(
                "tracking.uri",
                self.uri,
                "expected http://host:port, sqlite:////absolute/path.db or postgresql://..., or null for sqlite in "
                "paths.output",
            )
        if self.uri is not None:
            address("tracking.uri", self.uri)
        name("tracking.experiment", self.experiment, in_path=False)


@dataclass
class PathsConfig:
    """Folders; relative ones are resolved from the working directory of the command."""

    data: str
    output: Annotated[str, SHARED]
    cache: str | None  # of tokens; None: the folder `cache` in paths.output

    def __post_init__(self) -> None:
        for key in ("data", "output", "cache"):
            if getattr(self, key) is not None and not getattr(self, key).strip():
                raise ConfigError(f"paths.{key}", "''", "expected a folder")


MOST_WORKERS = 1024  # systems refuse to start many more


@dataclass
class LoaderConfig:
    """How images reach the device."""

    workers: Annotated[int, PACE]  # decoding processes of a streamed set
    # A set of at most this size, as uint8, is kept on the device. It is decoded once to the model's image size, whereas
    # a streamed one is cropped at full resolution, so with larger files the value changes results.
    resident_gib: float
    stage: Annotated[str | None, PACE]  # node-local folder to which a streamed set is copied first

    def __post_init__(self) -> None:
        at_least("loader.workers", self.workers, 0)
        if self.workers > MOST_WORKERS:
            raise ConfigError("loader.workers", self.workers, f"expected <= {MOST_WORKERS} processes")
        if self.resident_gib < 0:
            raise ConfigError("loader.resident_gib", self.resident_gib, "expected a number >= 0")
        if self.stage is not None and not self.stage.strip():
            raise ConfigError("loader.stage", "''", "expected a folder, or null")


@dataclass
class DebugConfig:
    """Shortened runs for debugging."""

    train_images: Annotated[int | None, USUAL | DATA]  # use only this many, the first ones
    eval_images: Annotated[int | None, USUAL | DATA]
    detect_anomaly: bool  # torch's anomaly detection: slow; names the operation that produced a NaN

    def __post_init__(self) -> None:
        for key in ("train_images", "eval_images"):
            if getattr(self, key) is not None:
                at_least(f"debug.{key}", getattr(self, key), 1)


MOST_HEADS = 1024  # more are a typing error


@dataclass
class RunConfig:
    """One run: one training of one cell of the grid with one seed."""

    model: ModelConfig
    head: HeadConfig
    dataset: DatasetConfig
    augmentation: AugmentationConfig
    optimizer: OptimizerConfig
    tokens: TokensConfig
    schedule: Annotated[ScheduleConfig, RESULT]
    tracking: Annotated[TrackingConfig, SHARED]
    paths: Annotated[PathsConfig, NOTHING]
    loader: LoaderConfig
    debug: DebugConfig
    backbone: Annotated[BackboneMode, USUAL | SUMMARY, Neutral("train")]
    heads: Annotated[int, USUAL | SUMMARY]  # K, heads in parallel on the same tokens
    # Normalise pooled vectors over the batch before the classifier, without gain and bias, as attentive probing does.
    classifier_norm: Annotated[bool, USUAL | SUMMARY, Neutral(False)]
    # lambda of GA's decorrelation term; a negative value pushes the heads apart, 0 turns it off.
    decorrelation: Annotated[float, RESULT | SUMMARY]
    seed: Annotated[int, RESULT | SUMMARY]
    duration: Annotated[str, RESULT | SUMMARY]  # e.g. "300 epochs"
    batch_size: Annotated[int, RESULT | PACE | SUMMARY]  # images per optimizer step
    accumulation: int  # micro-batches that one step is split into
    clip_norm: Annotated[float | None, RESULT | MEMORY]  # largest gradient norm
    ema_decay: float | None  # exponential moving average of the weights, evaluated instead of them
    precision: Precision
    compile: Annotated[Compilation, PACE | MEMORY]
    activation_checkpointing: Annotated[bool, PACE | MEMORY]  # recompute blocks in the backward pass
    device: Annotated[str, PACE]  # auto, cpu, cuda, cuda:1, mps

    def __post_init__(self) -> None:
        at_least("heads", self.heads, 1)
        if self.heads > MOST_HEADS:
            raise ConfigError("heads", self.heads, f"expected an integer <= {MOST_HEADS}")
        at_least("seed", self.seed, 0)
        at_least("batch_size", self.batch_size, 1)
        at_least("accumulation", self.accumulation, 1)
        if self.batch_size % self.accumulation:
            raise ConfigError("accumulation", self.accumulation, f"expected a divisor of batch_size={self.batch_size}")
        self._check_durations()
        if self.schedule.min_lr > self.optimizer.lr:
            raise ConfigError("schedule.min_lr", self.schedule.min_lr, f"expected <= optimizer.lr={self.optimizer.lr}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError("clip_norm", self.clip_norm, "expected a number > 0, or null for no clipping")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ConfigError("ema_decay", self.ema_decay, "expected a number in (0, 1), or null for no average")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", self.device):
            raise ConfigError("device", self.device, "expected auto, cpu, mps, cuda or cuda:N")
        if self.heads == 1 and self.decorrelation != 0:
            raise ConfigError(
                "decorrelation",
                self.decorrelation,
                "expected 0 with heads=1, which has no other head to differ from",
            )
        self._check_head()
        self._check_backbone()
        if isinstance(self.model, CompactConfig):
            self.model.check_image_size(self.dataset.image_size)
            self._check_residual(self.model.residual_precision)
            if self.model.attention_kernel is AttentionKernel.triton:
                self._check_attention_kernel()

    def check_ranks(self, ranks: int) -> None:
        """Raise ConfigError unless `ranks` processes can share each batch."""
        if ranks > 1 and spec_of(self.head).is_fitted:
            raise ConfigError("head", self.head.name, f"expected a head that is trained, with {ranks} processes a run")
        if self.batch_size % (ranks * self.accumulation):
            least = ranks * self.accumulation
            shared = f"{ranks} processes with accumulation={self.accumulation} share a batch"
            raise ConfigError("batch_size", self.batch_size, f"expected a multiple of {least}: {shared}")

    def _check_residual(self, residual: ResidualPrecision) -> None:
        if residual is not ResidualPrecision.float32 and self.precision is not Precision.bfloat16:
            expected = f"expected precision=bfloat16 as well, found precision={self.precision.value}"
            raise ConfigError("model.residual_precision", residual.value, expected)

    def _check_attention_kernel(self) -> None:
        """Refuse a run in which no step would use the kernels."""
        if self.precision is Precision.float32:
            why = "precision=float32: the kernels multiply in bfloat16"
        elif self.backbone.is_frozen:
            why = f"backbone={self.backbone.value}: no block is trained"
        else:
            return
        raise ConfigError("model.attention_kernel", "triton", f"expected torch with {why}")

    def _check_durations(self) -> None:
        whole = Duration.parse("duration", self.duration)
        if whole.value == 0 or whole.unit is DurationUnit.percent:
            raise ConfigError("duration", self.duration, "expected more than 0 epochs, steps or images")
        warmup = Duration.parse("schedule.warmup", self.schedule.warmup)
        longest = 100.0 if warmup.unit is DurationUnit.percent else whole.value
        if warmup.unit in (whole.unit, DurationUnit.percent) and warmup.value >= longest:
            raise ConfigError(
                "schedule.warmup",
                self.schedule.warmup,
                f"expected less than the whole run, duration={self.duration}",
            )

    def _check_backbone(self) -> None:
        mode, scale = self.backbone, self.optimizer.backbone_lr_scale
        has_weights = self.model.checkpoint is not None or self.model.pretrained
        if not has_weights and mode in (BackboneMode.frozen, BackboneMode.finetune):
            hint = ", or backbone=random for random tokens" if mode.is_frozen else ""
            found = f"expected weights of the backbone, found none; give model.checkpoint=FILE{hint}"
            raise ConfigError("backbone", mode.value, found)
        if self.model.checkpoint is not None and mode is BackboneMode.random:
            raise ConfigError("model.checkpoint", self.model.checkpoint, "expected null with backbone=random")
        if self.model.pretrained and mode is BackboneMode.random:
            raise ConfigError("model.pretrained", "true", "expected false with backbone=random")
        if scale != 1 and mode is not BackboneMode.finetune:
            raise ConfigError("optimizer.backbone_lr_scale", scale, f"expected 1 with backbone={mode.value}")
        if mode.is_frozen and self.activation_checkpointing:
            raise ConfigError(
                "activation_checkpointing", "true", f"expected false: with backbone={mode.value} no block is trained"
            )
        if mode.is_frozen and self.compile is Compilation.blocks:
            raise ConfigError("compile", "blocks", f"expected auto, off or step: backbone={mode.value} trains no block")
        self._check_tokens()

    def _check_tokens(self) -> None:
        cache = self.tokens.cache
        if self.tokens.class_token and spec_of(self.head).class_token:
            expected = f"expected false: head={self.head.name} reads the class token by itself"
            raise ConfigError("tokens.class_token", "true", expected)
        if not self.backbone.is_frozen and cache is not TokenType.bfloat16:
            expected = f"expected bfloat16, the default, with backbone={self.backbone.value}, which stores no tokens"
            raise ConfigError("tokens.cache", cache.value, expected)
        if self.tokens.views:
            self._check_views()
        elif self.has_stored_tokens and (active := self.augmentation.first_active()):
            stored = f"tokens.cache={cache.value} stores the tokens of each image once"
            expected = f"expected no augmentation: {stored}; give augmentation=none, tokens.views=4 or tokens.cache=off"
            raise ConfigError(f"augmentation.{active[0]}", active[1], expected)

    def _check_views(self) -> None:
        """Check the views of each training image."""
        found, mixing = self.tokens.views, self.augmentation.first_mixing()
        if not self.backbone.is_frozen:
            expected = f"expected 0 with backbone={self.backbone.value}, which stores no tokens"
            raise ConfigError("tokens.views", found, expected)
        if spec_of(self.head).is_fitted:
            expected = f"expected 0 with head={self.head.name}, which compares images without augmentation"
            raise ConfigError("tokens.views", found, expected)
        if mixing:
            expected = f"expected 0 with tokens.views={found}: what is stored of an image has no part of others"
            raise ConfigError(f"augmentation.{mixing[0]}", mixing[1], expected)
        if not self.augmentation.first_active():
            raise ConfigError("tokens.views", found, "expected 0 without augmentation, as all views would be equal")

    @property
    def has_stored_tokens(self) -> bool:
        """Whether the head is trained on tokens that are computed once and stored."""
        return self.backbone.is_frozen and self.tokens.cache is not TokenType.off

    def _check_fitted(self) -> None:
        """Check a head that is not trained."""
        head, mode = self.head.name, self.backbone
        if not mode.is_frozen:
            expected = f"expected backbone=frozen or random, found {mode.value}: the head is not trained"
            raise ConfigError("head", head, expected)
        if self.heads != 1:
            raise ConfigError("heads", self.heads, f"expected 1 with head={head}, which has no branches")
        if self.classifier_norm:
            raise ConfigError("classifier_norm", "true", f"expected false with head={head}, which has no classifier")

    def _check_head(self) -> None:
        if spec_of(self.head).is_fitted:
            self._check_fitted()
        if isinstance(self.model, CompactConfig):
            self.head.check_width(self.model.width * self.tokens.last)
        normalises = self.classifier_norm or isinstance(self.head, GramConfig)
        if normalises and self.batch_size // self.accumulation < 2:
            why = "classifier_norm=true" if self.classifier_norm else f"head={self.head.name}"
            raise ConfigError(
                "batch_size",
                self.batch_size,
                f"expected >= 2 images per micro-batch: {why} normalises over the batch",
            )

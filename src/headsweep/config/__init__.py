"""Every configuration key: its type, its meaning and the rules between keys. Nothing here imports torch."""

from headsweep.config.data import AugmentationConfig, AugmentationOrder, DatasetConfig, DatasetFormat
from headsweep.config.duration import Duration, DurationUnit
from headsweep.config.parsing import parse
from headsweep.config.records.dataset import DATASETS, DatasetSpec
from headsweep.config.records.head import (
    HEADS,
    ClassAttentionConfig,
    GaConfig,
    GramConfig,
    HeadConfig,
    HeadSpec,
)
from headsweep.config.records.head_file import FileHeadConfig, spec_of
from headsweep.config.records.metric import METRICS, MetricSpec
from headsweep.config.records.model import (
    BACKBONES,
    KERNEL_WIDTHS,
    AttentionKernel,
    BackboneMode,
    BackboneSpec,
    Block,
    CompactConfig,
    ModelConfig,
    Positions,
    TimmConfig,
    Tokenizer,
    TokensConfig,
    TokenType,
)
from headsweep.config.schema import (
    Compilation,
    DebugConfig,
    LoaderConfig,
    OptimizerConfig,
    PathsConfig,
    Precision,
    RunConfig,
    ScheduleConfig,
    ScheduleName,
    TrackingConfig,
    TrackingName,
)
from headsweep.folders import PROJECT_ROOT

__all__ = [
    "BACKBONES",
    "DATASETS",
    "HEADS",
    "KERNEL_WIDTHS",
    "METRICS",
    "PROJECT_ROOT",
    "AttentionKernel",
    "AugmentationConfig",
    "AugmentationOrder",
    "BackboneMode",
    "BackboneSpec",
    "Block",
    "ClassAttentionConfig",
    "CompactConfig",
    "Compilation",
    "DatasetConfig",
    "DatasetFormat",
    "DatasetSpec",
    "DebugConfig",
    "Duration",
    "DurationUnit",
    "FileHeadConfig",
    "GaConfig",
    "GramConfig",
    "HeadConfig",
    "HeadSpec",
    "LoaderConfig",
    "MetricSpec",
    "ModelConfig",
    "OptimizerConfig",
    "PathsConfig",
    "Positions",
    "Precision",
    "RunConfig",
    "ScheduleConfig",
    "ScheduleName",
    "TimmConfig",
    "TokenType",
    "Tokenizer",
    "TokensConfig",
    "TrackingConfig",
    "TrackingName",
    "parse",
    "spec_of",
]

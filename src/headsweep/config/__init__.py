"""Every configuration key: its type, its meaning and the rules between keys. Nothing here imports torch."""

from headsweep.config.duration import Duration, DurationUnit
from headsweep.config.explaining import explain
from headsweep.config.head import (
    HEADS,
    ClassAttentionConfig,
    GaConfig,
    GapConfig,
    HeadConfig,
    SeqAttnConfig,
    SeqPoolConfig,
)
from headsweep.config.parsing import PROJECT_ROOT, parse
from headsweep.config.schema import (
    NOT_IDENTITY,
    AugmentationConfig,
    DatasetConfig,
    DatasetName,
    DebugConfig,
    LoaderConfig,
    ModelConfig,
    OptimizerConfig,
    PathsConfig,
    Positions,
    Precision,
    RunConfig,
    ScheduleConfig,
    ScheduleName,
    TrackingConfig,
    TrackingName,
)

__all__ = [
    "HEADS",
    "NOT_IDENTITY",
    "PROJECT_ROOT",
    "AugmentationConfig",
    "ClassAttentionConfig",
    "DatasetConfig",
    "DatasetName",
    "DebugConfig",
    "Duration",
    "DurationUnit",
    "GaConfig",
    "GapConfig",
    "HeadConfig",
    "LoaderConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PathsConfig",
    "Positions",
    "Precision",
    "RunConfig",
    "ScheduleConfig",
    "ScheduleName",
    "SeqAttnConfig",
    "SeqPoolConfig",
    "TrackingConfig",
    "TrackingName",
    "explain",
    "parse",
]

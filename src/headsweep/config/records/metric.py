"""What is measured in each evaluation: one record each, logged as SPLIT/NAME and shown in tables by its name.

A package adds one by an entry point in the group `headsweep.metrics` that names its record (docs/extending.md).
"""

from dataclasses import dataclass

from headsweep.config.records.registry import Registry


@dataclass(frozen=True)
class MetricSpec:
    """One number of an evaluation: all that is known of it without importing torch."""

    title: str  # of its column
    note: str = ""  # what it is, in a sentence below the table
    # module:function of the probabilities of the mean logits (n, c) and the labels (n,), as numpy arrays; returns a
    # float, or None where there is none. None: summed up batch by batch in `training/evaluation.py`.
    compute: str | None = None
    unit: str = "%"  # "%" shows 100 times the value
    lower_is_better: bool = False
    is_share_of_images: bool = False  # each image counts as 0 or 1, so that the error of one run is binomial
    logged_as: str | None = None  # if other than its name


_PER_CLASS = "mean over classes of the accuracy on the images of the class; classes without test images are left out"
_AREA = "mean over classes of the area under the ROC curve of the class against the rest"
_LOG_LOSS = "mean negative logarithm of the probability of the label; lower is better"
METRICS: Registry[MetricSpec] = Registry(
    "headsweep.metrics",
    "metric",
    MetricSpec,
    {
        "top1": MetricSpec("top-1 %", is_share_of_images=True),
        "top5": MetricSpec("top-5 %", is_share_of_images=True),
        "mean_per_class": MetricSpec("mean per class %", _PER_CLASS),
        "auroc": MetricSpec("AUROC %", _AREA, "headsweep.training.auroc:auroc"),
        "log_loss": MetricSpec("log loss", _LOG_LOSS, unit="nats", lower_is_better=True, logged_as="loss"),
    },
)

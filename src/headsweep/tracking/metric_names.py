"""Names of a run's metrics in its metrics log, its result and MLflow: SPLIT/METRIC.

train/loss    mean training loss of an epoch
val/..., test/...    loss, top1, top5, mean_per_class, auroc and per_head/top1_K of the weights at the end of an epoch,
                     K from 1; loss is the log loss, in nats
best/...    the same but for per_head on the test images with the weights of epoch best/epoch, the best by val/top1
"""

from __future__ import annotations

TRAIN_LOSS = "train/loss"
VAL_TOP1 = "val/top1"
TEST_TOP1 = "test/top1"
TEST_TOP5 = "test/top5"
BEST_EPOCH = "best/epoch"
TOP1_BY_EPOCH = (VAL_TOP1, TEST_TOP1)  # evaluated after each epoch: the first of the two that a run has


ADDED = ("mean_per_class", "auroc")  # runs of earlier versions do not have them
# Images x classes of a split up to which "auroc" is computed: 80 MB of scores, sorted in about a second.
MOST_SCORES = 10_000_000


def head_top1(head: int) -> str:
    """Return the name, without SPLIT, of the top-1 of one head alone; heads count from 1."""
    return f"per_head/top1_{head}"

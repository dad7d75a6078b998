"""Memory stored for the backward pass, as on a GPU: bfloat16, and attention without its matrix."""

import pytest
import torch

from composing import compose_run
from headsweep.models.build import model_of
from memory import saved_bytes


def kept(head: str, heads: int) -> int:
    # With dropout, attention on a CPU is not torch's fused one, which keeps no matrix of shares.
    run = compose_run(
        "model=cct_7_3x1", "model.attention_dropout=0", "dataset=cifar100", f"head={head}", f"heads={heads}"
    )
    run.dataset.num_classes = 100
    model = model_of(run).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return saved_bytes(model, torch.zeros(16, 3, 32, 32))


@pytest.fixture(scope="module")
def of_seqpool() -> int:
    return kept("seqpool", 1)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["seqattn", "ga"])
def test_eight_heads_store_at_most_ten_percent_more_than_seqpool(head, of_seqpool):
    assert of_seqpool < kept(head, 8) < 1.1 * of_seqpool

"""Batch normalisation over ranks is torch's where there is one."""

import pytest
import torch

from headsweep.heads.layers.stacked import StackedBatchNorm
from headsweep.training.batch_norm import _OverAll


class OneRank:
    count = 1

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_one_rank_normalises_as_torch_does(affine: bool, training: bool) -> None:
    over_all, plain = (StackedBatchNorm(1, 8, affine=affine).train(training) for _ in range(2))
    x = 3 * torch.randn(6, 8) + 1
    with _OverAll(OneRank()):
        got = over_all(x)
    torch.testing.assert_close(got, plain(x))
    torch.testing.assert_close(dict(over_all.named_buffers()), dict(plain.named_buffers()))

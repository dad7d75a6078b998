"""Heads export by the compiler's tracer, too, with unchanged results; `test_head_checks.py` has the other ways.

There, every head passes the same tracer, and the same export by another tracer. Here are two gradients that are written
by hand, with running statistics.
"""

import pytest
import torch

from headsweep.heads import build_head

pytestmark = pytest.mark.usefixtures("shapes_unchecked")


@pytest.mark.slow
def test_exports_by_the_compiler_s_tracer() -> None:
    torch.manual_seed(0)
    head = build_head("ga", width=64, num_classes=10, heads=2, tokens=16)
    head(torch.randn(4, 16, 64))  # moves running statistics away from 0 and 1
    sizes = ({0: torch.export.Dim("images")},)
    exported = torch.export.export(head.eval(), (torch.randn(4, 16, 64),), dynamic_shapes=sizes, strict=True)
    x = torch.randn(7, 16, 64)
    torch.testing.assert_close(exported.module()(x), head(x))

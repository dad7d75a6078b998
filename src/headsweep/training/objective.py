"""The objective: the sum of the heads' classification losses plus the decorrelation term of Gramian attention."""

# b images, k heads, c classes

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def objective(logits: Float[Tensor, "b k c"], targets: Float[Tensor, "b c"], decorrelation: float) -> Float[Tensor, ""]:
    """Sum over heads of the cross-entropy with soft targets, plus `decorrelation` times `head_divergence`.

    Gramian attention paper (ICCV 2023), section 3.3; a negative `decorrelation` pushes the heads apart.
    """
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    loss = -(targets[:, None] * log_probabilities).sum(dim=(1, 2)).mean()
    if decorrelation != 0:
        loss = loss + decorrelation * head_divergence(logits.float(), log_probabilities)
    return loss


def head_divergence(logits: Float[Tensor, "b k c"], log_probabilities: Float[Tensor, "b k c"]) -> Float[Tensor, ""]:
    """Sum over heads of the mean over b and c of exp(t) (t - p), t the detached ensemble, p the head (log space)."""
    ensemble = F.log_softmax(logits.mean(dim=1, keepdim=True).detach(), dim=-1)
    images, _, classes = logits.shape
    return (torch.exp(ensemble) * (ensemble - log_probabilities)).sum() / (images * classes)

"""Which tokens of a backbone a head is given.

Legend: b images, t prefix and patch tokens, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float
from torch import Tensor


class ClassToken(Enum):
    """Where a head is given the class token."""

    absent = "absent"
    first = "first"  # for heads that read it as such
    last = "last"  # as one more token to pool; patch tokens keep their places


@dataclass(frozen=True)
class ReadTokens:
    """Selects patch tokens and class token; registers are left out."""

    prefix: int  # tokens before the patch tokens, the class token first
    class_token: ClassToken

    def __call__(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b _ d"]:
        """Return the input of the head."""
        if self.class_token is ClassToken.absent:
            return tokens[:, self.prefix :]
        if self.class_token is ClassToken.last:
            return torch.cat([tokens[:, self.prefix :], tokens[:, :1]], 1)
        return tokens if self.prefix == 1 else torch.cat([tokens[:, :1], tokens[:, self.prefix :]], 1)

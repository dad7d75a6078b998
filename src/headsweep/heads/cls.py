"""The `cls` head: the backbone's class token (ViT, arXiv 2010.11929, section 3.1).

Legend: b images, n tokens, d width, k branches.
"""

from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from headsweep.heads.base import Head


@final
class ClsHead(Head):
    """Branches share the backbone's class token and differ in their classifiers alone."""

    class_token: ClassVar[bool] = True

    def pool(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b k d"]:
        """Return the first token, once per branch."""
        return tokens[:, :1].expand(-1, self.heads, -1)

    def token_weights(self, tokens: Float[Tensor, "b n d"]) -> None:
        """Return None: the class token gets its share of the patches in the backbone."""

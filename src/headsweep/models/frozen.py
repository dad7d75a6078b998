"""A frozen backbone, and the head that is trained on its tokens.

Legend: b images, c channels, y x rows and columns of pixels, t prefix and patch tokens, d width, k branches, l classes.
"""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from headsweep.errors import UserError
from headsweep.heads import FittedHead, Head
from headsweep.models.backbone import Backbone
from headsweep.models.classifier import Classifier

# Images that the backbone is given at once. On a CPU, the last bits of a token depend on the number of images computed
# with it, though not on its place among them: batches are filled up, so that an image has the same tokens in each.
AT_ONCE_ON_CPU, AT_ONCE = 16, 128


class Probe(nn.Module):
    """The head of a classifier as a model of tokens; the names of its parameters are those in the classifier."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        assert isinstance(classifier.head, Head), "a model just built has a head"
        self.head, self.read_by_head = classifier.head, classifier.read_by_head

    def forward(
        self, tokens: Float[Tensor, "b t d"], per_head: bool = False
    ) -> Float[Tensor, "b l"] | Float[Tensor, "b k l"]:
        """Return mean logits, with `per_head` those of each branch."""
        logits = self.head(self.read_by_head(tokens))
        return logits if per_head else logits.mean(1)

    def fit(self, batches: Iterable[tuple[Float[Tensor, "b t d"], Int[Tensor, " b"]]]) -> None:
        """Fit the head to the tokens and labels of all training images. Raises as `FittedHead.fit`."""
        assert isinstance(self.head, FittedHead), "the caller has asked"
        self.head.fit((self.read_by_head(tokens), labels) for tokens, labels in batches)

    def no_weight_decay(self) -> set[str]:
        """Return the head's parameters that are one-dimensional per branch."""
        return {f"head.{name}" for name in self.head.no_weight_decay()}


class FrozenBackbone:
    """A backbone in evaluation mode, without gradients.

    Args:
        backbone: moved to the device, and changed to evaluation mode.
        device: where it computes.
        autocast: returns the context of a forward pass.
    """

    def __init__(
        self, backbone: Backbone, device: torch.device, autocast: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._backbone = backbone.to(device).eval().requires_grad_(False)
        self._autocast, self._is_filled_up = autocast, device.type == "cpu"
        self._digest = weights_digest(self._backbone)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Return the tokens in float32."""
        parts = images.split(AT_ONCE_ON_CPU if self._is_filled_up else AT_ONCE)
        with self._autocast():
            return torch.cat([self._tokens(part).float() for part in parts])

    def _tokens(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        if not self._is_filled_up or len(images) == AT_ONCE_ON_CPU:
            return self._backbone.read(images)
        rest = images[-1:].expand(AT_ONCE_ON_CPU - len(images), *images.shape[1:])
        return self._backbone.read(torch.cat([images, rest]))[: len(images)]

    def check_unchanged(self) -> None:
        """Raise UserError if a weight is not what it was at first."""
        if weights_digest(self._backbone) != self._digest:
            raise UserError(
                "expected the weights of the frozen backbone unchanged, found others: a defect of headsweep"
            )


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of parameters and buffers, with their names and shapes."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()

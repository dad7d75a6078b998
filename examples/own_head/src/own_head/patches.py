"""The `patches` backbone: each patch of the image through the same MLP; no token depends on another."""

from torch import Tensor, nn

from headsweep.models.backbone import Backbone
from own_head.records import PatchesConfig


class Patches(Backbone):
    """One convolution whose stride is its kernel, a GELU, a linear layer and a norm."""

    def __init__(self, options: PatchesConfig, image_size: int, channels: int, class_token: bool) -> None:
        side = image_size // options.patch
        super().__init__(options.width, tokens=side * side, prefix=0, channels=channels)
        self.embed = nn.Conv2d(channels, options.width, options.patch, options.patch)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(options.width, options.width), nn.LayerNorm(options.width))

    def forward(self, images: Tensor) -> Tensor:  # (b, c, y, x) to (b, n, d)
        return self.mlp(self.embed(images).flatten(2).mT)

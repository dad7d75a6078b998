"""The tokenizers of ViT-Lite, CVT and CCT (arXiv 2104.05704, sections 3.1 and 3.2): images to tokens.

Legend: b images, c channels, y x rows and columns of pixels, n tokens, d width.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headsweep.config import CompactConfig
from headsweep.config import Tokenizer as TokenizerKind
from headsweep.models.compact.memory_layout import arrange_for_convolution, arrange_for_pooling

for _name in ("arrange_for_convolution", "arrange_for_pooling"):
    torch.fx.wrap(_name)  # FX cannot trace a device
TOKENIZER_PLANES = 64  # channels between the tokenizer's layers


class Tokenizer(nn.Module):
    """Convolutions whose pixels are the tokens (section 3.2).

    `convolution` has layers of convolution without bias, max-pooling and ReLU, `patch` one strided convolution with
    bias. The paper has the ReLU before the pooling: the same values and gradients, of four times as many numbers.
    """

    def __init__(self, model: CompactConfig, channels: int) -> None:
        super().__init__()
        planes = [channels, *[TOKENIZER_PLANES] * (model.tokenizer_layers - 1), model.width]
        self.layers = nn.Sequential(*(self._layer(model, inside, outside) for inside, outside in pairwise(planes)))

    def _layer(self, model: CompactConfig, planes_in: int, planes_out: int) -> nn.Sequential:
        patch = model.tokenizer is TokenizerKind.patch
        sizes = model.tokenizer_kernel, model.stride, model.padding
        convolution = nn.Conv2d(planes_in, planes_out, *sizes, bias=patch)
        nn.init.kaiming_normal_(convolution.weight)
        return nn.Sequential(convolution) if patch else nn.Sequential(convolution, nn.MaxPool2d(3, 2, 1), nn.ReLU())

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n d"]:
        """Tokens in row order."""
        planes = _as_tokens_lie(images)
        for layer in self.layers:
            assert isinstance(layer, nn.Sequential)
            convolution, *pooling = layer
            assert isinstance(convolution, nn.Conv2d)
            overlaps = convolution.kernel_size > convolution.stride
            planes = arrange_for_pooling(convolution(arrange_for_convolution(planes, overlaps)))
            for operation in pooling:
                planes = operation(planes)
        # The memory layout of the blocks' outputs; with another one the first block would be compiled separately.
        return planes.flatten(2).transpose(1, 2).contiguous()


@torch.fx.wrap  # FX cannot trace the device
def _as_tokens_lie(images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c y x"]:
    """Return the images with the channels of a pixel together on a GPU, as cuDNN's kernels for bfloat16 need them."""
    return images.contiguous(memory_format=torch.channels_last) if images.is_cuda else images

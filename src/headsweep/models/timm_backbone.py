"""Backbones of timm: their tokens, or their feature maps as tokens.

Legend: b images, c channels, y x rows and columns of pixels, t prefix and patch tokens, d width.
"""

import copy
import difflib
import math
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.layers import to_2tuple
from timm.models import ResNet, get_pretrained_cfg, is_model, is_model_in_modules
from torch import Tensor, nn

from headsweep.config import TimmConfig
from headsweep.errors import ConfigError
from headsweep.models.backbone import Backbone, one_level_down
from headsweep.models.drop_path import hold_rates_as_data

OWN_MODULES = ("registry",)  # last part of `headsweep.models.registry`, whose models timm lists among its own


class TimmBackbone(Backbone):
    """A model of timm without its classifier and pooling; a feature map is read in row order.

    The tokens are the model's output with `num_classes=0` and `reset_classifier(0, "")`. A model that refuses
    this, or pools all the same, is read by `forward_features` and loses its `head`.

    Args:
        model: the name in timm's registry and the keywords of its builder.
        image_size: side of the images in pixels, or (rows, columns).
        channels: of the images.
        class_token: whether the head reads one; a model of timm has one or not.

    Raises:
        ConfigError: the name is unknown, keywords or image size are refused, or there are no patch tokens.
    """

    model: Any  # timm's models share no type

    def __init__(
        self, model: TimmConfig, image_size: int | tuple[int, int], channels: int, class_token: bool = False
    ) -> None:
        built = _create(model, image_size, channels)
        if model.small_stem:
            _replace_stem(model.name, built)
        hold_rates_as_data(built)
        pools = _refuses_unpooled(built)
        features = _probe(model.name, built, pools, image_size, channels)
        if not pools and isinstance(features, Tensor) and features.ndim == 2:
            pools, features = True, _probe(model.name, built, True, image_size, channels)
        if pools:
            built.head = nn.Identity()  # unused, so it would not be trained
        prefix = _count_prefix(built)
        super().__init__(*_check_tokens(model, built, features, prefix, image_size), prefix, channels)
        self.has_class_token = getattr(built, "cls_token", None) is not None and prefix > 0
        self.model, self.pools, self.options = built, pools, model

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Tokens after the model's final norm."""
        return _as_tokens(_features(self.model, self.pools, images), _format(self.model))

    def forward_intermediates(
        self,
        images: Float[Tensor, "b c y x"],
        indices: int | list[int] | tuple[int, ...] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        prefix = {"return_prefix_tokens": True} if return_prefix_tokens else {}  # convolutional models do not accept it
        keywords = {"norm": norm, "stop_early": stop_early, "output_fmt": output_fmt, **prefix}
        if intermediates_only:
            return self.model.forward_intermediates(images, indices, intermediates_only=True, **keywords)
        last, features = self.model.forward_intermediates(images, indices, **keywords)
        last = last if self.pools else self.model.forward_head(last)
        return _as_tokens(last, _format(self.model)), features

    def prune_intermediate_layers(self, indices: int | list[int] | tuple[int, ...], prune_norm: bool) -> list[int]:
        return self.model.prune_intermediate_layers(indices, prune_norm=prune_norm)

    def feature_info(self) -> list[dict[str, Any]]:
        """Return the model's own, with names one level down."""
        return [{**info, "module": f"model.{info['module']}"} for info in self.model.feature_info]

    def set_input_size(self, image_size: tuple[int, int]) -> None:
        """Set the size as timm's model does; models that accept any size change nothing."""
        if hasattr(self.model, "set_input_size"):
            self.model.set_input_size(img_size=image_size)
        features = _probe(self.options.name, self.model, self.pools, image_size, self.channels)
        _, self.tokens = _check_tokens(self.options, self.model, features, self.prefix, image_size)

    def set_grad_checkpointing(self, enable: bool) -> None:
        self.model.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool) -> dict[str, Any]:
        """Return the model's own groups, with names one level down."""
        return one_level_down(self.model.group_matcher(coarse=coarse), "model")

    def no_weight_decay(self) -> set[str]:
        named = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else set()
        return {f"model.{name}" for name in named}


def _create(model: TimmConfig, image_size: int | tuple[int, int], channels: int) -> nn.Module:
    if not is_model(model.name) or is_model_in_modules(model.name, OWN_MODULES):
        known = [name for name in timm.list_models() if not is_model_in_modules(name, OWN_MODULES)]
        close = difflib.get_close_matches(model.name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists them"
        raise ConfigError("model.name", model.name, f"unknown model of timm; {hint}")
    described = get_pretrained_cfg(model.name)
    fixed = described is not None and described.fixed_input_size
    size = {"img_size": to_2tuple(image_size)} if fixed else {}
    try:
        return timm.create_model(model.name, num_classes=0, in_chans=channels, **(size | (model.options or {})))
    except Exception as error:  # timm's builders raise many kinds
        key, got = ("model.options", model.options) if model.options else ("model.name", model.name)
        raise ConfigError(key, got, f"timm cannot build {model.name} with it: {_reason(error)}") from error


def _replace_stem(name: str, built: nn.Module) -> None:
    """Keep the resolution up to the first stage, as in ResNets for 32x32 images; initialised as in timm."""
    stem = getattr(built, "conv1", None)
    if not isinstance(built, ResNet) or not isinstance(stem, nn.Conv2d):
        raise ConfigError(
            "model.small_stem", "true", f"expected false: {name} is no ResNet with a single stem convolution"
        )
    built.conv1 = nn.Conv2d(stem.in_channels, stem.out_channels, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(built.conv1.weight, mode="fan_out", nonlinearity="relu")
    built.maxpool = nn.Identity()


def _refuses_unpooled(built: Any) -> bool:
    """Remove classifier and pooling; return whether the model still pools."""
    try:
        built.reset_classifier(0, "")
    except (AttributeError, AssertionError, ValueError):
        return True
    return False


def _features(model: Any, pools: bool, images: Float[Tensor, "b c y x"]) -> Any:
    return model.forward_features(images) if pools else model(images)


def _probe(name: str, built: nn.Module, pools: bool, image_size: int | tuple[int, int], channels: int) -> Any:
    """Return the features of one image on the meta device."""
    ghost = copy.deepcopy(built).to("meta").eval()
    images = torch.empty(1, channels, *to_2tuple(image_size), device="meta")
    try:
        with torch.no_grad():
            return _features(ghost, pools, images)
    except Exception as error:  # timm's models raise many kinds
        raise ConfigError(
            "dataset.image_size", image_size, f"expected a size that {name} accepts ({_reason(error)})"
        ) from error


def _count_prefix(built: nn.Module) -> int:
    """Return the number of tokens before the patch tokens; VOLO and PiT have class tokens without declaring them."""
    class_token = getattr(built, "cls_token", None)
    return int(getattr(built, "num_prefix_tokens", 0 if class_token is None else class_token.shape[1]))


def _check_tokens(
    model: TimmConfig, built: nn.Module, features: Any, prefix: int, image_size: int | tuple[int, int]
) -> tuple[int, int]:
    """Return width and number of the patch tokens.

    Raises:
        ConfigError: there are none, they are no grid, or there is one, which leaves a head nothing to pool.
    """
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise ConfigError("model.name", model.name, "expected a model that outputs tokens or one feature map")
    _, tokens, width = _as_tokens(features, _format(built)).shape
    tokens -= prefix
    rows, columns = to_2tuple(image_size)
    if tokens < 1:
        raise ConfigError(
            "model.name", model.name, "expected a model that outputs patch tokens, found the class token alone"
        )
    if rows == columns and math.isqrt(tokens) ** 2 != tokens:
        raise ConfigError("model.name", model.name, f"expected a square grid of tokens, found {tokens}")
    if tokens == 1:
        small = isinstance(built, ResNet) and not model.small_stem
        hint = " or model.small_stem=true" if small else ""
        found = f"{model.name} makes a single token of these"
        raise ConfigError("dataset.image_size", image_size, f"expected larger images{hint}: {found}")
    return width, tokens


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _format(model: nn.Module) -> str:
    return str(getattr(model, "output_fmt", "NCHW"))


@torch.fx.wrap  # in a trace of FX, the number of dimensions is no number to compare
def _as_tokens(features: Tensor, output_format: str) -> Float[Tensor, "b t d"]:
    """Return tokens unchanged, and the pixels of a feature map in row order."""
    if features.ndim == 3:
        return features
    if output_format == "NHWC":
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2)

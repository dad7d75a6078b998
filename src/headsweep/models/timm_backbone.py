"""Backbones of timm: their tokens, or their feature maps as tokens.

Legend: b images, c channels, y x rows and columns of pixels, t prefix and patch tokens, d width.
"""

import copy
import difflib
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import torch
from jaxtyping import Float
from timm.layers import to_2tuple
from timm.models import ResNet, get_pretrained_cfg, is_model, is_model_in_modules
from torch import Tensor, nn

from headsweep.config import TimmConfig, TokensConfig
from headsweep.errors import ConfigError
from headsweep.models.backbone import Backbone, Blocks, last_alone, one_level_down
from headsweep.models.drop_path import hold_rates_as_data
from headsweep.models.pretrained import loading
from headsweep.text import message_of

# Last parts of the modules of headsweep.models whose models timm lists among its own.
OWN_MODULES = ("configured", "registry")


class TimmBackbone(Backbone):
    """A model of timm without its classifier and pooling; a feature map is read in row order.

    The tokens are the model's output with `num_classes=0` and `reset_classifier(0, "")`. A model that refuses
    this, or pools all the same, is read by `forward_features` and loses its `head`.

    Args:
        model: the name in timm's registry and the keywords of its builder.
        image_size: side of the images in pixels, or (rows, columns).
        channels: of the images.
        class_token: whether the head reads one; a model of timm has one or not.
        weights: pretrained ones, in a layout that timm reads.

    Raises:
        ConfigError: the name is unknown, keywords or image size are refused, or there are no patch tokens.
    """

    model: Any  # timm's models share no type

    def __init__(
        self,
        model: TimmConfig,
        image_size: int | tuple[int, int],
        channels: int,
        class_token: bool = False,
        weights: dict[str, Tensor] | None = None,
    ) -> None:
        built = _create(model, image_size, channels, weights)
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
        self.model, self.pools, self.options, self.image_size = built, pools, model, image_size

    def forward(self, images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b t d"]:
        """Tokens after the model's final norm."""
        return _as_tokens(_features(self.model, images, self.pools), _format(self.model))

    def _measure_selected(self, name: str, tokens: TokensConfig) -> None:
        """See `Backbone._measure_selected`; a stage of a convolutional or hierarchical model is read alone."""
        if self._has_stages():
            self._check_stage(name, tokens)
        try:
            features = _on_meta(self, self.image_size, self.channels, lambda module, images: module.read(images))
        except Exception as error:  # timm's models raise many kinds
            raise last_alone(name, tokens, message_of(error)) from error
        self.width, self.tokens = _check_tokens(self.options, self.model, features, self.prefix, self.image_size)

    def count_blocks(self) -> int:
        """Return the number of timm's features of the model; that of a convolutional model is a stage."""
        are_given = hasattr(self.model, "forward_intermediates") and hasattr(self.model, "prune_intermediate_layers")
        return len(self.model.feature_info) if are_given else 0

    def _has_stages(self) -> bool:
        """Return whether features differ in width or grid."""
        return len({(feature["num_chs"], feature["reduction"]) for feature in self.model.feature_info}) > 1

    def _check_stage(self, name: str, tokens: TokensConfig) -> None:
        """Raise ConfigError unless a stage is read alone, without the final norm, which is that of the last stage."""
        if tokens.last > 1:
            found = f"expected 1: the stages of model.name={name} differ in width and grid"
            raise ConfigError("tokens.last", tokens.last, found)
        if tokens.norm:
            found = f"expected false with tokens.layer={tokens.layer}: the final norm of model.name={name} is that of "
            raise ConfigError("tokens.norm", "true", f"{found}its last stage")

    def drop_unread(self) -> None:
        """See `Backbone.drop_unread`; a norm after the pooling (`fc_norm`) belongs to the final norm."""
        if (read := self.blocks_read) is not None:
            self.model.prune_intermediate_layers(
                read.indices, prune_norm=not read.norm, prune_head=not read.norm and not self.pools
            )

    def _as_tokens(self, blocks: Blocks, feature: Any) -> Float[Tensor, "b t d"]:
        """See `Backbone._as_tokens`; timm's features lack the norm that some models have after the pooling."""
        tokens = super()._as_tokens(blocks, feature)
        has_late_norm = blocks.norm and not self.pools and hasattr(self.model, "fc_norm")
        return self.model.forward_head(tokens) if has_late_norm else tokens

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
        try:
            features = _on_meta(self, image_size, self.channels, lambda module, images: module.read(images))
        except Exception as error:  # timm's models raise many kinds
            raise _refused_size(self.options.name, image_size, error) from error
        _, self.tokens = _check_tokens(self.options, self.model, features, self.prefix, image_size)
        self.image_size = image_size

    def set_grad_checkpointing(self, enable: bool) -> None:
        self.model.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool) -> dict[str, Any]:
        """Return the model's own groups, with names one level down."""
        return one_level_down(self.model.group_matcher(coarse=coarse), "model")

    def no_weight_decay(self) -> set[str]:
        named = self.model.no_weight_decay() if hasattr(self.model, "no_weight_decay") else set()
        return {f"model.{name}" for name in named}


def _create(
    model: TimmConfig, image_size: int | tuple[int, int], channels: int, weights: dict[str, Tensor] | None
) -> nn.Module:
    if not is_model(model.name) or is_model_in_modules(model.name, OWN_MODULES):
        known = [name for name in timm.list_models() if not is_model_in_modules(name, OWN_MODULES)]
        close = difflib.get_close_matches(model.name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "timm.list_models() lists them"
        raise ConfigError("model.name", model.name, f"unknown model of timm; {hint}")
    described = get_pretrained_cfg(model.name)
    fixed = described is not None and described.fixed_input_size
    size = {"img_size": to_2tuple(image_size)} if fixed else {}
    options = size | (model.options or {})
    try:
        if weights is None:
            return timm.create_model(model.name, num_classes=0, in_chans=channels, **options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*which is a no-op")  # on the meta device, where shapes are checked
            built = timm.create_model(
                model.name, num_classes=0, in_chans=channels, **options, **loading(model.name, weights)
            )
        built.pretrained_cfg["state_dict"] = None  # it would be copied with the model
        return built
    except Exception as error:  # timm's builders raise many kinds
        key = "model.checkpoint" if weights is not None else "model.options" if model.options else "model.name"
        got = {"model.checkpoint": model.checkpoint, "model.options": model.options, "model.name": model.name}[key]
        raise ConfigError(key, got, f"timm cannot build {model.name} with it: {message_of(error)}") from error


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


def _features(model: Any, images: Float[Tensor, "b c y x"], pools: bool) -> Any:
    return model.forward_features(images) if pools else model(images)


def _probe(name: str, built: nn.Module, pools: bool, image_size: int | tuple[int, int], channels: int) -> Any:
    """Return the features of one image on the meta device."""
    try:
        return _on_meta(built, image_size, channels, partial(_features, pools=pools))
    except Exception as error:  # timm's models raise many kinds
        raise _refused_size(name, image_size, error) from error


def _on_meta(
    module: nn.Module,
    image_size: int | tuple[int, int],
    channels: int,
    call: Callable[[Any, Tensor], Any],
) -> Any:
    """Return what `call` gives of a module and one image on the meta device."""
    images = torch.empty(1, channels, *to_2tuple(image_size), device="meta")
    with torch.no_grad():
        return call(copy.deepcopy(module).to("meta").eval(), images)


def _refused_size(name: str, image_size: int | tuple[int, int], error: Exception) -> ConfigError:
    return ConfigError("dataset.image_size", image_size, f"expected a size that {name} accepts ({message_of(error)})")


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

"""Backbones: timm's, a small-image stem for ResNets, and a few ResNets small enough for a CPU."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from torch import Tensor, nn

from stopgrad.nets.norms import to_group_norm

# timm's ResNet with one basic block a stage and narrow stages, the stem as narrow as the first.
SMALL_RESNETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "resnet10_16": {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128)},
        "resnet10_24": {"layers": (1, 1, 1, 1), "channels": (24, 48, 96, 192)},
        "resnet10_32": {"layers": (1, 1, 1, 1), "channels": (32, 64, 128, 256)},
    }
)
STEMS = ("standard", "small", "small_stride2")
# As `small`, but no ReLU before the first block: how Lightly's ResNetGenerator comes out when its children are put into
# a Sequential, as its CIFAR-10 benchmarks do. For their checkpoints; do not train new ones.
LINEAR_STEM = "small_linear"
_SWINS = (SwinTransformer, SwinTransformerV2, SwinTransformerV2Cr)
_DECLARED = "_stopgrad_num_features"


def build_backbone(
    name: str, *, stem: str = "standard", image_size: int = 224, norm: str = "batch", pool: str = "default",
    patch_size: int = 0, drop_path: float = 0.0, pretrained: bool = False, overlay: Mapping[str, Any] | None = None,
    channels: int = 3, any_size: bool = False,
) -> nn.Module:  # fmt: skip
    """A network from normalised images `[image, channels, image_size, image_size]` to pooled features `[image, dim]`.

    Args:
        name: a timm model, or one of `SMALL_RESNETS`.
        stem: `standard`; `small` (3x3 convolution at stride 1, no max-pool) or `small_stride2` for ResNets; or
            `LINEAR_STEM`.
        image_size: side of the images, for networks whose shape depends on it.
        norm: `group` puts GroupNorms in place of BatchNorms; anything else leaves them.
        pool: `default`, `avg` (the mean over places) or `token` (the class token).
        patch_size: side of a ViT's patches; 0: its own. Weights that are there are resampled.
        drop_path: rate of stochastic depth; 0: the network's own.
        pretrained: with timm's weights (fetched by timm).
        overlay: changes to timm's config of the weights, such as the file where they are.
        channels: of the images.
        any_size: have a ViT take images of other sides too, its positions interpolated in each pass.

    Returns:
        A module whose output dimension `num_features` tells.

    Raises:
        ValueError: an unknown name or stem, a stem on a network that is no ResNet, weights that are not available, or
            an option that the network does not have.
    """
    if stem not in (*STEMS, LINEAR_STEM):
        raise ValueError(f"unknown stem {stem!r}: valid: {', '.join(STEMS)}.")
    model: Any
    try:
        if name in SMALL_RESNETS:
            if pretrained:
                raise ValueError(f"backbone {name!r} has no pretrained weights; use init = 'random' or a timm model.")
            model = _narrow_resnet(**SMALL_RESNETS[name], in_channels=channels)
        elif timm.is_model(name.split(".")[0]):
            more: dict[str, Any] = {"pretrained_cfg_overlay": dict(overlay)} if overlay else {}
            if channels != 3:
                more["in_chans"] = channels
            if drop_path:
                more["drop_path_rate"] = drop_path
            model = _created(name, image_size, any_size=any_size, pretrained=pretrained, **more)
        else:
            raise ValueError(f"unknown backbone {name!r}: {nearest_names(name)}")
    except TypeError as error:
        if not drop_path:
            raise
        raise ValueError(f"drop_path = {drop_path} with backbone {name!r}: it has no stochastic depth.") from error
    except RuntimeError as error:
        # timm's word for an unknown tag, or weights that do not exist.
        raise ValueError(f"backbone {name!r}: {error}") from error
    except OSError as error:
        raise ValueError(f"backbone {name!r}: its weights cannot be fetched: {error}") from error
    if stem != "standard":
        _shrink_stem(model, name, stride=2 if stem == "small_stride2" else 1)
        if stem == LINEAR_STEM:
            model.act1 = nn.Identity()
    set_pool(model, name, pool)
    set_image_size(model, name, image_size, patch_size)
    module: nn.Module = model
    return to_group_norm(module) if norm == "group" else module


def _created(name: str, image_size: int, *, any_size: bool = False, **more: Any) -> Any:
    """timm's network; of those that are built for one side and cannot change it later, for the side asked for."""
    if any_size:
        # Networks that take no such argument take any side, or one side alone, which `takes_any_size` tells.
        with suppress(TypeError):
            return timm.create_model(name, num_classes=0, dynamic_img_size=True, **more)
    model = timm.create_model(name, num_classes=0, **more)
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    other = config is not None and config.fixed_input_size and image_size != config.input_size[-1]
    if not other or hasattr(model, "set_input_size") or more.get("pretrained"):
        return model
    try:
        return timm.create_model(name, num_classes=0, img_size=image_size, **more)
    # It has no such argument: a dry run will tell.
    except TypeError:
        return model


def set_image_size(backbone: nn.Module, name: str, image_size: int, patch_size: int = 0) -> None:
    """Fit a backbone whose shape depends on the images' side to another one, and a ViT to patches of another side.

    Positions and patches' weights are interpolated. Other backbones take any side.

    Raises:
        ValueError: a side that does not fit, or a patch size for a network without patches.
    """
    has_patches = hasattr(getattr(backbone, "patch_embed", None), "patch_size")
    if patch_size and not (has_patches and hasattr(backbone, "set_input_size")):
        raise ValueError(f"patch_size = {patch_size} with backbone {name!r}: it has no patches whose side can change.")
    if not hasattr(backbone, "set_input_size"):
        return
    more: dict[str, Any] = {"patch_size": patch_size} if patch_size else {}
    if isinstance(backbone, _SWINS):
        # As timm builds it for this side; by itself it would scale the windows with the images.
        more["window_size"] = _window_of(backbone)
    try:
        backbone.set_input_size(img_size=image_size, **more)  # type: ignore[operator]
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        also = f", patch_size = {patch_size}" if patch_size else ""
        raise ValueError(f"image_size = {image_size}{also} does not fit backbone {name!r}: {error}") from error


def _window_of(backbone: nn.Module) -> tuple[int, int] | None:
    """The windows that a Swin is made of: its largest, as those of few places shrink."""
    windows = [part.window_size for part in backbone.modules() if hasattr(part, "window_size")]
    pairs = [tuple(window) if isinstance(window, Sequence) else (window, window) for window in windows]
    return max(pairs, default=None)


def takes_one_size(backbone: nn.Module) -> bool:
    """Whether a backbone's shape depends on the images' side, so that it takes no other."""
    config = getattr(backbone, "pretrained_cfg", None)
    fixed = bool(config.get("fixed_input_size")) if isinstance(config, Mapping) else False
    return fixed or hasattr(backbone, "set_input_size")


def takes_any_size(backbone: nn.Module) -> bool:
    """Whether one network takes images of several sides, a multiple of its patches' side where it has any."""
    return not takes_one_size(backbone) or bool(getattr(backbone, "dynamic_img_size", False))


@torch.no_grad()
def features_shape(backbone: nn.Module, image_size: int, channels: int = 3) -> torch.Size:
    """The shape of what a backbone makes of two images, by a dry run; its mode is left as it is.

    Raises:
        Exception: whatever the backbone raises on images of this side.
    """
    modes = {part: part.training for part in backbone.modules()}
    device = next((p.device for p in backbone.parameters()), torch.device("cpu"))
    try:
        found = backbone.eval()(torch.zeros(2, channels, image_size, image_size, device=device))
    finally:
        for part, mode in modes.items():
            part.training = mode
    return torch.Size(found.shape)


def set_pool(backbone: nn.Module, name: str, pool: str) -> None:
    """Have features pooled as asked: `default`, `avg` or `token`.

    Raises:
        ValueError: the class token of a network that has none.
    """
    has_token = getattr(backbone, "cls_token", None) is not None and hasattr(backbone, "global_pool")
    if pool == "token" and not has_token:
        raise ValueError(f"pool = 'token' with backbone {name!r}: it has no class token; use pool = 'avg'.")
    # Networks without a class token pool by the mean as they are.
    if pool != "default" and has_token:
        backbone.reset_classifier(0, pool)  # type: ignore[operator]


def native_image_size(name: str) -> int:
    """The images' side that a backbone is made for: 224, but another for some whose shape depends on it."""
    cfg = None if name in SMALL_RESNETS else timm.get_pretrained_cfg(name, allow_unregistered=True)
    return int(cfg.input_size[-1]) if cfg is not None and cfg.fixed_input_size else 224


def num_features(backbone: nn.Module) -> int:
    """Dimension of a backbone's pooled features: as `declare_num_features` says it, or timm's own word."""
    for name in (_DECLARED, "head_hidden_size", "num_features"):
        if isinstance(dim := getattr(backbone, name, None), int):
            return dim
    raise ValueError(f"a {type(backbone).__name__} does not say the dimension of its features.")


def declare_num_features(backbone: nn.Module, dim: int) -> None:
    """Say the dimension of the features of a network that is not timm's."""
    setattr(backbone, _DECLARED, dim)


def _narrow_resnet(layers: tuple[int, ...], channels: tuple[int, ...], in_channels: int) -> nn.Module:
    """A ResNet of basic blocks whose stem has the first stage's channels instead of 64."""
    model: Any = ResNet(BasicBlock, layers, num_classes=0, channels=channels)  # type: ignore[arg-type]
    width = channels[0]
    model.conv1 = _conv(in_channels, width, kernel_size=7, stride=2)
    model.bn1 = nn.BatchNorm2d(width)
    first = model.layer1[0]
    first.conv1 = _conv(width, width, kernel_size=3)
    first.downsample = None
    module: nn.Module = model
    return module


def _conv(in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    """A convolution as timm's ResNet has and initialises them."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def _shrink_stem(model: Any, name: str, stride: int) -> None:
    first = model.conv1 if isinstance(model, ResNet) else None
    if not isinstance(first, nn.Conv2d):
        raise ValueError(f"backbone {name!r} has no stem to replace: use stem = 'standard', or a ResNet.")
    model.conv1 = _conv(first.in_channels, first.out_channels, kernel_size=3, stride=stride)
    model.maxpool = nn.Identity()


def with_input_channels(weights: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """A network's weights for images of as many channels as `backbone` takes, adapted as timm adapts its own.

    The first layer's weights over channels are added up for one, else repeated and scaled, so that a grey image gives
    what it gave in RGB.

    Args:
        weights: of the same network for another number of channels.
        backbone: the network that is to take them.
    """
    own = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    adapted = dict(weights)
    for name, tensor in weights.items():
        shape = own.get(name)
        if shape is None or tensor.ndim != 4 or shape[1] == tensor.shape[1] or tensor.shape[1] != 3:
            continue
        if shape[0] == tensor.shape[0] and shape[2:] == tensor.shape[2:]:
            adapted[name] = adapt_input_conv(shape[1], tensor)
    return adapted


def nearest_names(name: str) -> str:
    """The end of an error message about an unknown backbone: the names most like it."""
    near = get_close_matches(name, [*SMALL_RESNETS, *timm.list_models()], n=3, cutoff=0.6)
    if near:
        return f"did you mean {', '.join(map(repr, near))}?"
    return f"use a timm model name, or one of {', '.join(SMALL_RESNETS)}."

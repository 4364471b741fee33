"""Encoders and decoders of others: a MobileNetV2, a ResNet or any of some hundred more.

From segmentation-models-pytorch (P. Iakubovskii and others, MIT), imported when such a network is
built and not before. EMKD's further students and teachers are among them by name, not to the unit:
its MobileNetV2 and ResNet-18 have no decoder, its PSPNet and DeepLabV3+ are of other repositories.
"""

from __future__ import annotations

import copy
import difflib
from typing import Any, Literal

import torch
from torch import Tensor, nn

from DistillSegLib.networks.blocks import fold_depth, unfold_depth

INSTALL = 'pip install "distillseg[encoders]"'


class EncoderDecoder(nn.Module):
    """(B, C, D, H, W) -> logits (B, K, D, H, W), slice by slice; weights are fresh.

    H and W are multiples of the encoder's stride: 32; 16 for "deeplabv3plus"; 8 for "deeplabv3" and
    "pspnet".
    Features lie where the encoder has them: `encoder/1` at stride 2 … `encoder/5` at stride 32, as
    far as it goes; where it keeps a stride, the deepest feature of that stride. "pspnet" pools to
    fixed numbers of bins, which cannot be exported with free sizes.

    Args:
        architecture: how features become logits.
        encoder: as segmentation-models-pytorch calls it.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        architecture: Literal[
            "unet", "unetplusplus", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus"
        ] = "unet",
        encoder: str = "mobilenet_v2",
    ):
        super().__init__()
        library = _library()
        whole = {"encoder_depth": 5} if architecture == "pspnet" else {}
        try:
            made = library.create_model(architecture, encoder, None, channels, classes, **whole)
        except KeyError as problem:
            known = library.encoders.get_encoder_names()
            near = difflib.get_close_matches(encoder, known, n=4, cutoff=0.3)
            raise ValueError(f"no encoder '{encoder}'; near are {', '.join(near)}.") from problem
        _drop_unused(made, channels)
        self.encoder, self.decoder, self.head = made.encoder, made.decoder, made.segmentation_head
        depth, stride = len(self.encoder.out_channels) - 1, self.encoder.output_stride
        if architecture == "pspnet":  # the library cuts the encoder at stride 8; here it is dilated
            self.encoder.make_dilated(stride := 8)
        self.levels = nn.ModuleList(nn.Identity() for _ in range(depth))
        self.multiple = (1, stride, stride)
        deepest = stride.bit_length() - 1  # log2
        self.taps = {f"encoder/{min(i + 1, deepest)}": f"levels.{i}" for i in range(depth)}

    def forward(self, image: Tensor) -> Tensor:
        first, *features = self.encoder(fold_depth(image))  # of strides 1, 2, 4 …
        features = [level(each) for level, each in zip(self.levels, features, strict=True)]
        return unfold_depth(self.head(self.decoder([first, *features])), image.shape[0])


def _library() -> Any:
    try:
        import segmentation_models_pytorch
    except ModuleNotFoundError as problem:
        raise ValueError(
            f"it needs a package that is not installed, {problem.name}; {INSTALL}"
        ) from problem
    except (ImportError, RuntimeError) as problem:
        raise ValueError(
            f"segmentation-models-pytorch cannot be imported ({problem}); install the torchvision "
            "of the same release and build (CPU or CUDA) as torch."
        ) from problem
    return segmentation_models_pytorch


def _drop_unused(network: nn.Module, channels: int) -> None:
    """Take out layers that a forward pass never reaches, as in the encoders of EfficientNet."""
    reached: set[str] = set()
    trial = copy.deepcopy(network).to("meta").eval()  # computes nothing
    for path, layer in trial.named_modules():
        layer.register_forward_hook(lambda _m, _i, _o, path=path: reached.add(path))
    trial(torch.empty(1, channels, 64, 64, device="meta"))
    for path, layer in list(network.named_modules()):
        if path not in reached and any(True for _ in layer.parameters(recurse=False)):
            parent, _, name = path.rpartition(".")
            setattr(network.get_submodule(parent), name, nn.Identity())

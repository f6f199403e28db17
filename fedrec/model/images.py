"""Image vectors of items: a frozen EfficientNet-Lite0 reads pictures, without torchvision. Made once and cached.

The last layer says what is on a picture. Mean and spread of the channels of every stage before say how it looks: colour
and texture, which early layers see and the last one has forgotten.
Reference: Gatys et al. 2016, doi:10.1109/CVPR.2016.265, on statistics of a network's channels as style.
"""

import hashlib
import io
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from fedrec.data.media import IMAGE, ItemImages, ModalityVectors
from fedrec.errors import ModelError
from fedrec.model.features import save_tensors

Progress = Callable[[int, int], None]
# Channels of the last layer, and twice those of the seven stages.
IMAGE_DIM = 1280 + 2 * 784
# Changes when the recipe below changes, so that an old cache is never taken for a new one.
_RECIPE = "efficientnet-lite0+white-square-224/2"
_SIDE, _BATCH = 224, 32
# A picture of more pixels than this is refused before it is unpacked: a few bytes can claim gigabytes.
_MOST_PIXELS = 64_000_000
# Repeats, kernel, stride, expansion, channels: Tan and Le 2019, arXiv:1905.11946, table 1, less squeeze-excitation.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
_LATE_STAGES = ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320))
# Places of the stages' last blocks among the layers; the stem is at 0.
_STAGE_ENDS = tuple(itertools.accumulate(repeats for repeats, *_ in (*_STAGES, *_LATE_STAGES)))


class _Convolution(nn.Module):
    """A convolution padded as TensorFlow pads, with its batch norm folded in, and ReLU6 where asked."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, *, bounded: bool) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self._stride, self._groups, self._bounded = stride, 1, bounded
        if weight.shape[1] == 1:  # one channel each
            self._groups = len(weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """`[images, channels, height, width]`."""
        kernel = self.weight.shape[-1]
        pads = []
        for size in (pixels.shape[-1], pixels.shape[-2]):
            missing = max((-(-size // self._stride) - 1) * self._stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        found = F.conv2d(F.pad(pixels, pads), self.weight, self.bias, self._stride, groups=self._groups)
        return F.relu6(found) if self._bounded else found


class _Block(nn.Module):
    """Expand, look at each channel alone, project; added to its input where it has the same shape."""

    def __init__(self, layers: Sequence[nn.Module], *, residual: bool) -> None:
        super().__init__()
        self._layers, self._residual = nn.Sequential(*layers), residual

    def forward(self, pixels: Tensor) -> Tensor:
        """`[images, channels, height, width]`."""
        found: Tensor = self._layers(pixels)
        return found + pixels if self._residual else found


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier, read at its end and at the end of every stage.

    Args:
        weights: by the names of the public file.
    Raises: ModelError: not these weights.
    Reference: Tan and Le 2019, arXiv:1905.11946; Lite has ReLU6 and no squeeze-excitation.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        try:
            self._layers = nn.Sequential(*_layers(weights))
        except KeyError as error:
            raise ModelError(f"no EfficientNet-Lite0: it lacks {error}", "see `fedrec model list`") from error

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 `[images, 3, 224, 224]`, 0 to 1 -> `[images, 2848]`: the end, then means and spreads by stage."""
        found, means, spreads = (pixels * 255 - 127) / 128, list[Tensor](), list[Tensor]()
        for place, layer in enumerate(self._layers):
            found = layer(found)
            if place in _STAGE_ENDS:
                means.append(found.mean((2, 3)))
                spreads.append(found.std((2, 3)))
        return torch.cat([found.mean((2, 3)), *means, *spreads], 1)


def _layers(weights: Mapping[str, Tensor]) -> list[nn.Module]:
    layers: list[nn.Module] = [_convolution(weights, "_conv_stem", "_bn0", 2)]
    number, width = 0, 32
    for repeats, _, first_stride, expansion, channels in (*_STAGES, *_LATE_STAGES):
        for repeat in range(repeats):
            stride, place = first_stride if repeat == 0 else 1, f"_blocks.{number}."
            parts = [_convolution(weights, f"{place}_expand_conv", f"{place}_bn0", 1)] if expansion > 1 else []
            parts.append(_convolution(weights, f"{place}_depthwise_conv", f"{place}_bn1", stride))
            parts.append(_convolution(weights, f"{place}_project_conv", f"{place}_bn2", 1, bounded=False))
            layers.append(_Block(parts, residual=stride == 1 and width == channels))
            number, width = number + 1, channels
    layers.append(_convolution(weights, "_conv_head", "_bn1", 1))
    return layers


def _convolution(
    weights: Mapping[str, Tensor], name: str, norm: str, stride: int, *, bounded: bool = True
) -> nn.Module:
    of_norm = (weights[f"{norm}.{part}"].float() for part in ("weight", "bias", "running_mean", "running_var"))
    gain, bias, mean, variance = of_norm
    gain = gain / torch.sqrt(variance + 1e-3)
    weight = weights[f"{name}.weight"].float() * gain[:, None, None, None]
    return _Convolution(weight, bias - mean * gain, stride, bounded=bounded)


@dataclass(frozen=True)
class ImageEncoder:
    """A loaded image encoder.

    Attributes:
        hash: of its weights' file.
    """

    module: nn.Module = field(repr=False)
    hash: str

    @classmethod
    def load(cls, folder: Path) -> "ImageEncoder":
        """From a folder with one `.pth` file, read without unpickling code. Raises ModelError."""
        files = sorted(folder.glob("*.pth"))
        if len(files) != 1:
            raise ModelError(f"{folder}: no image encoder there", "run `fedrec model fetch efficientnet-lite0`")
        try:
            weights = torch.load(files[0], map_location="cpu", weights_only=True)
        except Exception as error:  # torch names no exceptions for a damaged file
            raise ModelError(f"{files[0]}: damaged ({type(error).__name__})", "fetch it anew") from error
        module = EfficientNetLite0(weights).eval().requires_grad_(False)
        return cls(module, hashlib.sha256(files[0].read_bytes()).hexdigest())

    def encode(self, pictures: Sequence[bytes | None], progress: Progress | None = None) -> ModalityVectors:
        """Vectors of encoded pictures; absent where there is none, or it cannot be read.

        Returns: name "image", vectors float32 `[pictures, 2848]`, zero where absent.
        """
        vectors = np.zeros((len(pictures), IMAGE_DIM), np.float32)
        present = np.zeros(len(pictures), np.bool_)
        for start in range(0, len(pictures), _BATCH):
            squares = {
                place: square
                for place, content in enumerate(pictures[start : start + _BATCH], start)
                if content is not None and (square := read_picture(content)) is not None
            }
            if squares:
                pixels = torch.from_numpy(np.stack(list(squares.values()))).permute(0, 3, 1, 2).float() / 255
                with torch.no_grad():
                    vectors[list(squares)] = self.module(pixels).numpy()
                present[list(squares)] = True
            if progress:
                progress(min(start + _BATCH, len(pictures)), len(pictures))
        return ModalityVectors(IMAGE, vectors, present, own_units=True)


def read_picture(content: bytes, side: int = _SIDE) -> NDArray[np.uint8] | None:
    """A picture on a white square, uint8 `[side, side, 3]`; None if it cannot be read.

    Stamps and goods come cut out, of any shape: what is transparent is white, nothing is cropped or stretched.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            packed = Image.open(io.BytesIO(content))
            if packed.width * packed.height > _MOST_PIXELS:
                return None
            packed.draft("RGB", (side, side))
            picture = packed.convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    # Before it is shrunk: colours below full transparency are arbitrary, and would bleed in.
    paper = Image.new("RGBA", picture.size, "white")
    paper.alpha_composite(picture)
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    square = Image.new("RGB", (side, side), "white")
    shrunk = paper.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    square.paste(shrunk, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)


def image_vectors(images: ItemImages, folder: Path, cache: Path, progress: Progress | None = None) -> ModalityVectors:
    """Every item's image vector, from the cache where they were made before.

    Args:
        images: public.
        folder: of the image encoder.
        cache: folder; a hit is taken by the hash of images, encoder and recipe.
        progress: called with (pictures read, pictures in all).
    Raises: ModelError: no encoder there.
    """
    encoder = ImageEncoder.load(folder)
    key = hashlib.sha256("|".join([_RECIPE, images.hash, encoder.hash]).encode()).hexdigest()
    stored = cache / "features" / f"image-{key[:32]}.safetensors"
    if stored.is_file():
        with suppress(SafetensorError, KeyError):
            tensors = load_file(stored)
            return ModalityVectors(IMAGE, tensors["vectors"], tensors["present"].astype(np.bool_), key, own_units=True)
    found = replace(encoder.encode(images.pictures, progress), made_from=key)
    save_tensors({"vectors": found.vectors, "present": found.present.astype(np.uint8)}, stored)
    return found

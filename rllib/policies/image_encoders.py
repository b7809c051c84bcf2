"""Convolutional encoders of images: Nature CNN and IMPALA CNN, as functions of their arrays.

One function serves the learner, with parameters that have gradients, and acting, with fixed arrays, so there is no
second net to keep equal. What is here ends with the flattened feature maps; the dense layer that follows belongs to the
net around it (``modules.py``, ``acting_nets.py``).

    nature_cnn  Mnih et al. 2015, Nature 518:529: 32 filters 8x8 stride 4, 64 4x4 stride 2, 64 3x3 stride 1; dense 512
    impala_cnn  Espeholt et al. 2018, arXiv:1802.01561, figure 3 (right): three sections of 16, 32, 32 channels, each a
                3x3 convolution, a max pool of stride 2 and two residual blocks of two 3x3 convolutions; dense 256

A row's bits must not depend on the rows beside it (see ``acting_nets.py``). oneDNN picks its kernels by the size of the
batch, so acting always computes ``BLOCK_IMAGES`` at once, padded: within such a block an image has the same bits in any
place (tested). On one thread of an EPYC, Nature CNN costs 0.16 ms for one image, 0.09 each in blocks of 4, 0.07 each
in blocks of 8; IMPALA 1.15, 0.66 and 0.60. Fours waste little where a worker has few environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

ImageNet = Literal["nature_cnn", "impala_cnn"]

#: Width of the dense layer after the convolutions.
DENSE_SIZES: dict[ImageNet, int] = {"nature_cnn": 512, "impala_cnn": 256}

#: Pixels that Nature CNN's three convolutions need on each side to have anything left.
SMALLEST_NATURE_IMAGE = 36

#: Images of every convolution when acting.
BLOCK_IMAGES = 4

_NATURE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # filters, width of the kernel, stride
_IMPALA = (16, 32, 32)


def conv_shapes(net: ImageNet, channels: int) -> list[tuple[int, int, int, int]]:
    """Shapes of the convolutions' weights, in the order in which ``feature_maps`` takes them; biases are [shape[0]]."""
    shapes: list[tuple[int, int, int, int]] = []
    if net == "nature_cnn":
        for filters, width, _ in _NATURE:
            shapes.append((filters, channels, width, width))
            channels = filters
        return shapes
    for filters in _IMPALA:
        shapes += [(filters, channels, 3, 3), *[(filters, filters, 3, 3)] * 4]
        channels = filters
    return shapes


def feature_size(net: ImageNet, height: int, width: int) -> int:
    """Numbers in the flattened feature maps of an image."""
    if net == "nature_cnn":
        for _, kernel, stride in _NATURE:
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
        return _NATURE[-1][0] * height * width
    for _ in _IMPALA:
        height, width = (height + 1) // 2, (width + 1) // 2
    return _IMPALA[-1] * height * width


def as_images(images: torch.Tensor, *, channels_first: bool, divisor: float) -> torch.Tensor:
    """[N, C, H, W] float32 in torch's channels-last order, which halves the time of these convolutions on a CPU.

    Args:
      images: [N, H, W], [N, H, W, C] or [N, C, H, W], of any dtype.
      channels_first: Which of the last two it is.
      divisor: What to divide by.
    """
    import torch

    if images.dim() == 3:
        images = images.unsqueeze(1)
    elif not channels_first:
        images = images.permute(0, 3, 1, 2)
    images = images.to(dtype=torch.float32, memory_format=torch.channels_last)
    return images if divisor == 1.0 else images / divisor


def feature_maps(
    net: ImageNet, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor], images: torch.Tensor
) -> torch.Tensor:
    """Flattened feature maps [N, feature_size] of images [N, C, H, W]."""
    from torch.nn import functional

    if net == "nature_cnn":
        for (_, _, stride), weight, bias in zip(_NATURE, weights, biases, strict=True):
            images = functional.conv2d(images, weight, bias, stride).relu()
        return images.flatten(1)
    maps = images
    for section in range(len(_IMPALA)):
        first = 5 * section
        maps = functional.conv2d(maps, weights[first], biases[first], padding=1)
        maps = functional.max_pool2d(maps, 3, stride=2, padding=1)
        for block in (first + 1, first + 3):
            inner = functional.conv2d(maps.relu(), weights[block], biases[block], padding=1).relu()
            maps = maps + functional.conv2d(inner, weights[block + 1], biases[block + 1], padding=1)
    return maps.relu().flatten(1)


class FixedEncoder:
    """The convolutions of one image column with fixed weights, for acting. Imports torch.

    Args:
      net: Which.
      weights, biases: Float32 arrays, see ``conv_shapes``.
      channels_first, divisor: See ``as_images``.
    """

    def __init__(
        self,
        net: ImageNet,
        weights: Sequence[np.ndarray],
        biases: Sequence[np.ndarray],
        *,
        channels_first: bool,
        divisor: float,
    ) -> None:
        import torch

        self._net = net
        # Copies: arrays from the object store are read-only, and torch warns of those.
        self._weights = [torch.tensor(weight).to(memory_format=torch.channels_last) for weight in weights]
        self._biases = [torch.tensor(bias) for bias in biases]
        self._channels_first = channels_first
        self._divisor = divisor

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """[N, feature_size] float32 of images [N, *shape]; each row's bits are its own."""
        import torch

        missing = -len(images) % BLOCK_IMAGES
        if missing:
            images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        with torch.inference_mode():
            # Torch warns of arrays that it may not write to, as those are that come through the object store.
            whole = torch.from_numpy(np.require(images, requirements=["C", "W"]))
            starts = range(0, len(images), BLOCK_IMAGES)
            features = torch.cat([self._features(whole[start : start + BLOCK_IMAGES]) for start in starts])
        return features[: len(images) - missing].numpy()

    def _features(self, block: torch.Tensor) -> torch.Tensor:
        images = as_images(block, channels_first=self._channels_first, divisor=self._divisor)
        return feature_maps(self._net, self._weights, self._biases, images)

"""The memory clients train in, one after another: one block a tensor, viewed in each architecture's shape."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedpareto.supernet.networks.weights import Tensors
from fedpareto.supernet.slices import Shape, supernet_architecture, tensor_shapes
from fedpareto.supernet.space import SearchSpace

_CHANNELS_LAST_DIMENSIONS = 4


class Buffers:
    """Blocks of memory for one set of a client's tensors (weights, or momentum), reused by the next client.

    A view of one architecture's shapes overlaps those of every other: only one is in use at a time, and whoever
    takes it into use fills it whole. Blocks take the system's memory as they are first written.

    Args:
        space: the search space.
        device: where the memory is.
        memory_format: of convolution weights.
    """

    def __init__(self, space: SearchSpace, device: torch.device, memory_format: torch.memory_format) -> None:
        largest = tensor_shapes(space, supernet_architecture(space))
        self._blocks = {name: torch.empty(math.prod(shape), device=device) for name, shape in largest.items()}
        self._memory_format = memory_format

    def views(self, shapes: Mapping[str, Shape]) -> Tensors:
        """Return a dense view of every named tensor's block in the given shape; its values are left-overs."""
        return {name: self._view(name, shape) for name, shape in shapes.items()}

    def _view(self, name: str, shape: Shape) -> Tensor:
        flat = self._blocks[name][: math.prod(shape)]
        if len(shape) == _CHANNELS_LAST_DIMENSIONS and self._memory_format == torch.channels_last:
            out, inner, height, width = shape
            return flat.view(out, height, width, inner).permute(0, 3, 1, 2)
        return flat.view(shape)

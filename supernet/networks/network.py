"""Networks: plain ``nn.Module`` objects, each built for one architecture from the rows of the layer table."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the library's own convention

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.layer_table import LayerRow, architecture_rows
from fedpareto.supernet.space import WIDTH_STEP, Activation, Norm, SearchSpace


class ConvLayer(nn.Module):
    """Convolution, optional norm, optional activation."""

    def __init__(self, row: LayerRow, norm: nn.Module | None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            row.c_in,
            row.c_out,
            row.kernel,
            stride=row.layer.stride,
            padding=row.kernel // 2,
            groups=row.groups,
            bias=row.layer.bias,
        )
        self.norm = norm if norm is not None else nn.Identity()
        self.activation = _activation(row.layer.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in, H, W) to (N, c_out, H/stride, W/stride)."""
        out: Tensor = self.activation(self.norm(self.conv(x)))
        return out


class Shortcut(ConvLayer):
    """Average pooling by the stride, then a convolution of stride 1 and its norm."""

    def __init__(self, row: LayerRow, norm: nn.Module | None) -> None:
        super().__init__(row._replace(layer=row.layer._replace(stride=1)), norm)
        # The last window of an odd side is smaller, as a strided convolution's output counts it.
        self.pool = nn.AvgPool2d(row.layer.stride, ceil_mode=True, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in, H, W) to (N, c_out, H/stride, W/stride)."""
        return super().forward(self.pool(x))


class PooledLinear(nn.Module):
    """Linear layer on pooled features, optional activation."""

    def __init__(self, row: LayerRow) -> None:
        super().__init__()
        self.linear = nn.Linear(row.c_in, row.c_out, bias=row.layer.bias)
        self.activation = _activation(row.layer.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, c_in) to (N, c_out)."""
        out: Tensor = self.activation(self.linear(x))
        return out


class Pool(nn.Module):
    """Global average pooling."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C)."""
        return x.mean((2, 3))


class BlockModule(nn.Module):
    """Layers run in order; ``squeeze``/``excite`` scale the map, ``add`` adds the block's input or its shortcut."""

    def __init__(self, rows: Sequence[LayerRow], norm: Norm, *, running_statistics: bool) -> None:
        super().__init__()
        self.steps: list[tuple[str, str]] = []
        for row in rows:
            name = row.layer.name.rsplit(".", 1)[1]
            self.steps.append((row.layer.kind, name))
            self.add_module(name, _layer(row, norm, running_statistics=running_statistics))

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on (N, c_in, H, W)."""
        shortcut = x
        gate = x
        for kind, name in self.steps:
            layer = self.get_submodule(name)
            if kind == "add":
                x = layer(x + shortcut)
            elif kind == "shortcut":
                shortcut = layer(shortcut)
            elif kind == "squeeze":
                gate = layer(x.mean((2, 3), keepdim=True))
            elif kind == "excite":
                x = x * F.hardsigmoid(layer(gate))
            else:
                x = layer(x)
        return x


class Network(nn.Module):
    """One architecture as an ordinary network: its blocks, run in order.

    The names of its parameters are a subset of the supernet's (``fedpareto.supernet.slices``).
    """

    def __init__(self, space: SearchSpace, architecture: Architecture, *, running_statistics: bool = False) -> None:
        super().__init__()
        rows = architecture_rows(space, architecture)
        blocks = build_blocks(rows, space.norm, running_statistics=running_statistics)
        self.paths = list(blocks)
        for path, block in blocks.items():
            _attach(self, path, block)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, channels, H, W) to logits (N, classes)."""
        for path in self.paths:
            x = self.get_submodule(path)(x)
        return x


@checked
def build_network(
    space: SearchSpace,
    architecture: Architecture,
    *,
    running_statistics: bool = False,
    device: torch.device | str | None = None,
) -> Network:
    """Build the network of ``architecture`` as a torch module, with torch's default weights.

    Args:
        space: the search space.
        architecture: one of its architectures.
        running_statistics: give BatchNorm running statistics, for calibration and deployment; without
            them it normalises by the batch. GroupNorm needs none.
        device: device of the parameters; ``meta`` allocates nothing.

    Raises:
        ArchitectureError: the architecture is not in the space.

    >>> import torch
    >>> import fedpareto as fp
    >>> space = fp.load_space("mobilenet-tiny")
    >>> network = fp.build_network(space, fp.find_subnet(space, macs="2M", progress=False).entry.architecture)
    >>> network(torch.zeros(4, 3, 16, 16)).shape
    torch.Size([4, 10])
    """
    with torch.device(device if device is not None else "cpu"):
        return Network(space, architecture, running_statistics=running_statistics)


def build_blocks(rows: Iterable[LayerRow], norm: Norm, *, running_statistics: bool = False) -> dict[str, BlockModule]:
    """Return the blocks that rows of the layer table make, by their paths, in the order they run."""
    grouped = groupby(rows, key=lambda row: row.layer.block)
    return {path: BlockModule(list(layers), norm, running_statistics=running_statistics) for path, layers in grouped}


def _attach(root: nn.Module, path: str, module: nn.Module) -> None:
    """Register ``module`` under a dotted path, with empty containers on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)


def _layer(row: LayerRow, norm: Norm, *, running_statistics: bool) -> nn.Module:
    if row.layer.kind == "add":
        return _activation(row.layer.activation)
    if row.layer.kind == "pool":
        return Pool()
    if row.layer.kind == "linear":
        return PooledLinear(row)
    normed = _norm(norm, row.c_out, running_statistics=running_statistics) if row.layer.norm else None
    return Shortcut(row, normed) if row.layer.kind == "shortcut" else ConvLayer(row, normed)


def _norm(norm: Norm, channels: int, *, running_statistics: bool) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(channels // WIDTH_STEP, channels)
    # momentum=None makes the running statistics a cumulative mean over calibration batches.
    return nn.BatchNorm2d(channels, momentum=None, track_running_stats=running_statistics)


def _activation(name: Activation | None) -> nn.Module:
    if name is None:
        return nn.Identity()
    return nn.ReLU() if name == "relu" else nn.Hardswish()

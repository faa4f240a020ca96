"""Block layouts: the layers of a stem, a block and a head in each family of networks.

A family is MobileNet or ResNet. Its layout is the only code that knows how a block is built. It writes rows of layers
through a ``Walk``. The layer table, the costs, the fitness, the slices and the networks all read those rows.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fedpareto.supernet.arrays import Column, IntArray
from fedpareto.supernet.space import Activation, SearchSpace, StageSpec

#: Kinds of rows, with their effect on the input ``x``:
#: ``conv``      x = act(norm(conv(x)));
#: ``shortcut``  shortcut = norm(conv(averages of stride×stride pixels of the block's input));
#: ``squeeze``   gate = relu(conv(mean(x)));    ``excite``  x = x · hard_sigmoid(conv(gate));
#: ``add``       x = act(x + shortcut), the block's input where it has no shortcut row;
#: ``pool``      x = mean over all pixels;      ``linear``  x = x·W + b.
LayerKind = Literal["conv", "shortcut", "squeeze", "excite", "add", "pool", "linear"]


class Layer(NamedTuple):
    """One row of the layer table without the figures that vary between architectures.

    ``name`` is the path of the layer's block, a dot, and the layer's name within the block.
    """

    name: str
    kind: LayerKind
    stride: int = 1
    activation: Activation | None = None
    norm: bool = False
    bias: bool = False

    @property
    def block(self) -> str:
        """Path of the block the layer belongs to."""
        return self.name.rpartition(".")[0]


class Size(NamedTuple):
    """Channels and side in pixels of a feature map, one value per architecture or one for all."""

    channels: Column
    side: Column

    @property
    def elements(self) -> Column:
        """Number of values in the map of one image."""
        return self.channels * self.side * self.side


class BlockChoice(NamedTuple):
    """The choices of one block slot, as columns of values (not of genes)."""

    width: IntArray
    kernel: IntArray
    expand: NDArray[np.float64]
    active: NDArray[np.bool_]


class Walk(Protocol):
    """Receives the rows of one walk over an architecture."""

    def row(
        self,
        layer: Layer,
        before: Size,
        c_out: Column,
        *,
        kernel: Column = 1,
        groups: Column = 1,
        held: Column = 0,
        active: NDArray[np.bool_] | bool = True,
    ) -> Size:
        """Append a row and return the size of its output; ``held`` counts the values of other maps still needed."""


class Layout(Protocol):
    """The layers of one family."""

    def block_key(self, c_in: IntArray, c_out: IntArray, expand: NDArray[np.float64]) -> IntArray:
        """Return keys, one per architecture, that are equal exactly where expand ratios make the same block."""

    def stem(self, walk: Walk, space: SearchSpace, image: Size, width: IntArray) -> Size:
        """Write the stem; return the size of its output."""

    def block(self, walk: Walk, name: str, spec: StageSpec, before: Size, choice: BlockChoice, *, first: bool) -> Size:
        """Write one block, of a stage the ``first`` or a later one; return the size of its output."""


def round8_columns(values: NDArray[np.float64]) -> IntArray:
    """Apply ``round8`` to every value."""
    rounded = np.maximum(8, np.floor(values + 4).astype(np.int64) // 8 * 8)
    return np.where(rounded < 0.9 * values, rounded + 8, rounded)


class MobileNetLayout:
    """OFA-MobileNetV3: expand 1×1, depthwise k×k, optional squeeze-excite, project 1×1, skip."""

    def block_key(self, c_in: IntArray, c_out: IntArray, expand: NDArray[np.float64]) -> IntArray:
        """Return the hidden channels as keys; 0 for ratio 1, whose block has no expand layer and differs from all."""
        del c_out
        return np.where(expand == 1, 0, _mobilenet_mid(c_in, expand))

    def stem(self, walk: Walk, space: SearchSpace, image: Size, width: IntArray) -> Size:
        """Write the stem convolution and the fixed first block (kernel 3, expand 1, ReLU)."""
        spec = space.stem
        stem = Layer("stem.entry", "conv", spec.stride, spec.activation, norm=True)
        after = walk.row(stem, image, width, kernel=3)
        depthwise = Layer("fixed.depthwise", "conv", 1, "relu", norm=True)
        inner = walk.row(depthwise, after, width, kernel=3, groups=width)
        inner = walk.row(Layer("fixed.project", "conv", norm=True), inner, width, held=after.elements)
        return walk.row(Layer("fixed.add", "add"), inner, width, held=after.elements)

    def block(self, walk: Walk, name: str, spec: StageSpec, before: Size, choice: BlockChoice, *, first: bool) -> Size:
        """Write one inverted residual; it skips iff its stride is 1 and its input is as wide as its output."""
        active, stride = choice.active, spec.stride if first else 1
        mid = _mobilenet_mid(np.asarray(before.channels), choice.expand)
        skips = active & (before.channels == choice.width) & (stride == 1)
        held = np.where(skips, before.elements, 0)
        expand = Layer(f"{name}.expand", "conv", 1, spec.activation, norm=True)
        # As in torchvision, a block of ratio 1 has no expand layer.
        expands = active & (choice.expand != 1)
        inner = walk.row(expand, before, mid, active=expands)
        depthwise = Layer(f"{name}.depthwise", "conv", stride, spec.activation, norm=True)
        inner = walk.row(depthwise, inner, mid, kernel=choice.kernel, groups=mid, held=held * expands, active=active)
        if spec.se:
            self._squeeze_excite(walk, name, inner, held, active)
        project = Layer(f"{name}.project", "conv", norm=True)
        after = walk.row(project, inner, choice.width, held=held, active=active)
        walk.row(Layer(f"{name}.add", "add"), after, choice.width, held=held, active=skips)
        return after

    def _squeeze_excite(self, walk: Walk, name: str, inner: Size, held: IntArray, active: NDArray[np.bool_]) -> None:
        squeezed = round8_columns(np.asarray(inner.channels) / 4)
        squeeze = Layer(f"{name}.squeeze", "squeeze", activation="relu", bias=True)
        gate = walk.row(squeeze, inner, squeezed, held=held, active=active)
        excite = Layer(f"{name}.excite", "excite", bias=True)
        # Two maps live beside the gate: the one that is scaled and the scaled one.
        walk.row(excite, gate, inner.channels, held=held + 2 * inner.elements, active=active)


def _mobilenet_mid(c_in: IntArray, expand: NDArray[np.float64]) -> IntArray:
    """Return a block's hidden channels, round8(round(c_in·expand)); c_in itself for ratio 1."""
    return np.where(expand == 1, c_in, round8_columns(np.rint(c_in * expand)))


class ResNetLayout:
    """DeepFedNAS's ResNet: two 3×3 convolutions; the first block of a stage projects its shortcut."""

    def block_key(self, c_in: IntArray, c_out: IntArray, expand: NDArray[np.float64]) -> IntArray:
        """Return the hidden channels as keys, round8(c_out·expand)."""
        del c_in
        return round8_columns(c_out * expand)

    def stem(self, walk: Walk, space: SearchSpace, image: Size, width: IntArray) -> Size:
        """Write the stem convolution."""
        spec = space.stem
        return walk.row(Layer("stem.entry", "conv", spec.stride, spec.activation, norm=True), image, width, kernel=3)

    def block(self, walk: Walk, name: str, spec: StageSpec, before: Size, choice: BlockChoice, *, first: bool) -> Size:
        """Write one block; the first of a stage projects its shortcut, whatever its stride."""
        active, stride = choice.active, spec.stride if first else 1
        mid = round8_columns(choice.width * choice.expand)
        added = before.elements
        conv1 = Layer(f"{name}.conv1", "conv", stride, spec.activation, norm=True)
        inner = walk.row(conv1, before, mid, kernel=3, active=active)
        conv2 = Layer(f"{name}.conv2", "conv", 1, spec.activation if spec.branch_activation else None, norm=True)
        after = walk.row(conv2, inner, choice.width, kernel=3, held=added, active=active)
        if first:
            shortcut = Layer(f"{name}.shortcut", "shortcut", stride, norm=True)
            added = walk.row(shortcut, before, choice.width, held=after.elements, active=active).elements
        walk.row(Layer(f"{name}.add", "add", 1, spec.activation), after, choice.width, held=added, active=active)
        return after


#: The last layer of every network, and the only one whose shape depends on the classes.
CLASSIFIER = "head.classifier"

#: The layout of every family.
LAYOUTS: Mapping[str, Layout] = {"mobilenet": MobileNetLayout(), "resnet": ResNetLayout()}


def write_head(walk: Walk, space: SearchSpace, before: Size, multiplier: NDArray[np.float64]) -> None:
    """Write what follows the last stage: the head if the space has one, then pooling and the classifier."""
    if space.head is not None:
        conv = Layer("head.last", "conv", 1, "hswish", norm=True)
        before = walk.row(conv, before, round8_columns(space.head.conv * multiplier))
    pooled = walk.row(Layer("head.pool", "pool"), before, before.channels)
    if space.head is not None:
        hidden = Layer("head.hidden", "linear", 1, "hswish")
        pooled = walk.row(hidden, pooled, round8_columns(space.head.hidden * multiplier))
    walk.row(Layer(CLASSIFIER, "linear", bias=True), pooled, space.classes)

"""Search spaces: the choices that the architectures of one supernet may make, stage by stage.

A space fixes the stem, the stages and the head, and lists the allowed depths, widths, kernels, expand ratios and
resolutions. It is a frozen value, which ``fedpareto.supernet.space_file`` reads from YAML. It holds no arrays and
imports neither numpy nor torch.
"""

import dataclasses
import functools
import hashlib
import json
import math
from typing import Literal

from fedpareto.supernet.architecture import Family
from fedpareto.supernet.common.errors import SpaceError
from fedpareto.supernet.fitness_settings import FitnessSettings, check_fitness

Norm = Literal["batch", "group", "none"]
Activation = Literal["relu", "hswish"]
#: Scope of an expand ratio: each block has its own, or all blocks of a stage share one.
ExpandsPer = Literal["block", "stage"]


#: Channels in one group of a GroupNorm, and the step all widths are rounded to, so that a prefix slice
#: never cuts a group.
WIDTH_STEP = 8


def round8(value: float) -> int:
    """Return the multiple of 8 nearest to ``value``: at least 8, raised by 8 if it fell below 0.9·value.

    The rule of MobileNetV2/V3 (``_make_divisible``).
    """
    rounded = max(WIDTH_STEP, int(value + WIDTH_STEP / 2) // WIDTH_STEP * WIDTH_STEP)
    return rounded + WIDTH_STEP if rounded < 0.9 * value else rounded


@dataclasses.dataclass(frozen=True)
class StemSpec:
    """The first 3×3 convolution: channels at multiplier 1, stride and the multipliers it may take."""

    width: int
    stride: int = 1
    activation: Activation = "relu"
    multipliers: tuple[float, ...] = (1.0,)


@dataclasses.dataclass(frozen=True)
class StageSpec:
    """One stage: output channels at multiplier 1, stride of its first block, activation, squeeze-excite.

    ``branch_activation`` activates the second convolution of ResNet blocks too, before their shortcut is added, as the
    code of DeepFedNAS and FEAST does.
    """

    width: int
    stride: int = 1
    activation: Activation = "relu"
    se: bool = False
    branch_activation: bool = False


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """MobileNetV3's head: channels of the last convolution and of the hidden layer, at multiplier 1."""

    conv: int
    hidden: int


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A search space: all choices, and all that is fixed, in the networks of one supernet.

    Attributes:
        name: name of the space in reports.
        family: the block layout (``fedpareto.supernet.blocks``).
        stem: the first convolution.
        stages: the elastic stages in order.
        resolutions: input sides in pixels, ascending.
        depths: blocks a stage may have, ascending.
        expands: expand ratios a block may have, ascending; hidden channels over the block's input
            (``mobilenet``, at least 1) or over its output (``resnet``, above 0).
        expands_per: ``block``: each has a ratio of its own; ``stage``: all blocks of a stage share one, as in FEAST.
        width_multipliers: multipliers on a stage's base width, ascending.
        kernels: depthwise kernel sides a block may have (odd), ascending; [3] in ``resnet``.
        head: MobileNetV3's head, its widths following the last stage's multiplier; without one the
            classifier follows the last stage.
        norm: ``batch`` (batch statistics, calibrate before use), ``group`` (groups of 8 channels) or ``none``: no
            normalisation, and convolutions without biases all the same, as DeepFedNAS trains.
        classes: outputs of the classifier.
        in_channels: channels of the images.
        fitness: weights of the fitness that fit this space.

    Raises:
        SpaceError: a field's value makes no network; the message names the field and what it allows.
    """

    name: str
    family: Family
    stem: StemSpec
    stages: tuple[StageSpec, ...]
    resolutions: tuple[int, ...]
    depths: tuple[int, ...]
    expands: tuple[float, ...]
    width_multipliers: tuple[float, ...]
    kernels: tuple[int, ...] = (3,)
    head: HeadSpec | None = None
    norm: Norm = "batch"
    classes: int = 10
    in_channels: int = 3
    fitness: FitnessSettings = dataclasses.field(default_factory=FitnessSettings)
    expands_per: ExpandsPer = "block"

    def __post_init__(self) -> None:
        check_space(self)

    @property
    def max_depth(self) -> int:
        """Block slots of every stage."""
        return self.depths[-1]

    @functools.cached_property
    def stem_choices(self) -> dict[int, float]:
        """Distinct stem widths, ascending, each with the largest multiplier that gives it."""
        return _widths(self.stem.width, self.stem.multipliers)

    @functools.cached_property
    def width_choices(self) -> tuple[dict[int, float], ...]:
        """Per stage, the distinct output widths, ascending, each with its largest multiplier."""
        return tuple(_widths(stage.width, self.width_multipliers) for stage in self.stages)

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that two spaces share exactly when they build the same networks."""
        return self._digest("name", "fitness")

    @functools.cached_property
    def choices_digest(self) -> str:
        """16 hex digits that two spaces share exactly when they build the same networks but for their classes."""
        return self._digest("name", "fitness", "classes")

    def _digest(self, *ignored: str) -> str:
        fields = {name: value for name, value in dataclasses.asdict(self).items() if name not in ignored}
        # 3 and 3.0 are the same ratio.
        for part, name in ((fields, "expands"), (fields, "width_multipliers"), (fields["stem"], "multipliers")):
            part[name] = [float(value) for value in part[name]]
        # What older versions did not know is left out where it changes nothing, so that their files still fit.
        for stage in fields["stages"]:
            if not stage["branch_activation"]:
                del stage["branch_activation"]
        if self.expands_per == "block":
            del fields["expands_per"]
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def adapted(self, *, classes: int) -> "SearchSpace":
        """Return this space with another number of classes."""
        return dataclasses.replace(self, classes=classes)


def _widths(base: int, multipliers: tuple[float, ...]) -> dict[int, float]:
    return {round8(base * multiplier): multiplier for multiplier in multipliers}


def check_space(space: SearchSpace) -> None:
    """Refuse field values no network can be built from.

    Raises:
        SpaceError: naming the field, its value and what it allows.
    """
    _check_choices(space, "resolutions", minimum=2)
    _check_choices(space, "depths", minimum=1)
    _check_choices(space, "kernels", minimum=1)
    _check_family(space)
    _check_multipliers("width_multipliers", space.width_multipliers)
    _check_multipliers("stem.multipliers", space.stem.multipliers)
    if any(kernel % 2 == 0 for kernel in space.kernels):
        raise SpaceError(f"kernels is {list(space.kernels)}; kernels must be odd")
    if not space.stages:
        raise SpaceError("stages is empty; a space needs at least one stage")
    parts: dict[str, StemSpec | StageSpec] = {"stem": space.stem}
    parts |= {f"stages[{index}]": stage for index, stage in enumerate(space.stages)}
    for where, part in parts.items():
        if part.width < WIDTH_STEP or part.width % WIDTH_STEP:
            raise SpaceError(f"{where}.width is {part.width}; widths are positive multiples of {WIDTH_STEP}")
        if part.stride not in (1, 2):
            raise SpaceError(f"{where}.stride is {part.stride}; allowed: 1, 2")
    for name, value in (("classes", space.classes), ("in_channels", space.in_channels)):
        if value < 1:
            raise SpaceError(f"{name} is {value}; it must be at least 1")
    head = dataclasses.asdict(space.head) if space.head else {}
    for name, value in head.items():
        if value < WIDTH_STEP or value % WIDTH_STEP:
            raise SpaceError(f"head.{name} is {value}; widths are positive multiples of {WIDTH_STEP}")
    check_fitness(space.fitness, space)


def _check_family(space: SearchSpace) -> None:
    if space.family == "mobilenet":
        _check_choices(space, "expands", minimum=1)
        for index, stage in enumerate(space.stages):
            if stage.branch_activation:
                raise SpaceError(
                    f"stages[{index}].branch_activation is true; that is for blocks of the family resnet: leave it out"
                )
        return
    positive = all(0 < ratio < math.inf for ratio in space.expands)
    if not space.expands or not positive or list(space.expands) != sorted(set(space.expands)):
        raise SpaceError(f"expands is {list(space.expands)}; it must list ratios above 0, ascending")
    if space.kernels != (3,):
        raise SpaceError(
            f"kernels is {list(space.kernels)}; blocks of the family {space.family} have 3×3 kernels: leave it out"
        )
    for index, stage in enumerate(space.stages):
        if stage.se:
            raise SpaceError(f"stages[{index}].se is true; blocks of the family {space.family} have no squeeze-excite")


def _check_choices(space: SearchSpace, name: str, minimum: int) -> None:
    values: tuple[float, ...] = getattr(space, name)
    finite = all(math.isfinite(value) for value in values)
    if not values or not finite or list(values) != sorted(set(values)) or values[0] < minimum:
        raise SpaceError(
            f"{name} is {list(values)}; it must list at least one value, ascending, each at least {minimum}"
        )


def _check_multipliers(name: str, values: tuple[float, ...]) -> None:
    if not values or list(values) != sorted(set(values)) or not 0 < values[0] <= values[-1] <= 1:
        raise SpaceError(f"{name} is {list(values)}; it must list multipliers above 0 and up to 1, ascending")

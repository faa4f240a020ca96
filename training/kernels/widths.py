"""Vector width of this machine's processor, and its number of vector registers."""

import dataclasses

import llvmlite.binding as llvm

from fedpareto.training.kernels.vectors import size


@dataclasses.dataclass(frozen=True)
class Widths:
    """Sizes that kernels are compiled for.

    Attributes:
        lanes: number of floats of a vector, 8 or 16.
        registers: number of vector registers of the processor.
    """

    lanes: int
    registers: int

    @property
    def lane_size(self) -> tuple[int, ...]:
        """``lanes`` as an argument."""
        return size(self.lanes)

    @property
    def tile(self) -> tuple[int, ...]:
        """Number of rows of a product's tile with three vectors a row, as an argument: the sums fill most registers."""
        return size(self.registers // 4)

    @property
    def register_size(self) -> tuple[int, ...]:
        """``registers`` as an argument."""
        return size(self.registers)


def _of_this_machine() -> Widths:
    features = llvm.get_host_cpu_features()
    return Widths(16, 32) if features.get("avx512f") else Widths(8, 16)


#: Those of this machine.
WIDTHS = _of_this_machine()

"""How wide this machine's vectors are, and what its registers hold."""

import dataclasses

import llvmlite.binding as llvm

from fedpareto.training.kernels.vectors import size


@dataclasses.dataclass(frozen=True)
class Widths:
    """Sizes that kernels are compiled for.

    Attributes:
        lanes: floats of a vector, 8 or 16.
        registers: vectors that the processor holds.
    """

    lanes: int
    registers: int

    @property
    def lane_size(self) -> tuple[int, ...]:
        """``lanes`` as an argument."""
        return size(self.lanes)

    @property
    def tile(self) -> tuple[int, ...]:
        """Rows of a tile of a product of three vectors a row, as an argument: its sums fill most registers."""
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

"""What stands in for CUDA graphs on a device that has none: recorded work is run again, operation by operation."""

from collections.abc import Callable

from torch import Tensor


class Rerun:
    """Records work by keeping it; a replay runs it and leaves its result where the first one was."""

    def record(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], object]]:
        """Run and keep ``work``."""
        result = work()
        return result, lambda: result.copy_(work())

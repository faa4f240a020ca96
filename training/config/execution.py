"""Settings of the execution: precision, kernels, threads and workers of the clients' steps."""

import dataclasses
from typing import Literal

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.bounds import bounded, check_bounds

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

PrecisionChoice = Literal["auto", "fp32", "tf32", "bf16", "fp16"]

MemoryFormat = Literal["channels_last", "contiguous"]

Kernels = Literal["torch", "numba"]


@dataclasses.dataclass(frozen=True)
class ExecutionConfig:
    """Computation of clients' steps. Settings that are left out are chosen by measurement at the start of a run.

    Attributes:
        memory_format: channels_last or contiguous.
        fused: one kernel for the whole optimizer step.
        compiled: torch.compile every architecture; takes about a minute each, so never chosen unasked.
        graphs: replay a step as one CUDA graph an architecture; GPUs only, not with fp16.
        workers: clients trained at once; the machine's threads are shared among them.
        threads: CPU threads of each worker; all threads divided by the workers when left out.
        kernels: numba for convolutions by channel and of 1×1 with their norm and activation, on a CPU in fp32 and
            channels_last (pip install 'fedpareto[fast]'), or torch.
    """

    memory_format: MemoryFormat | None = None
    fused: bool | None = None
    compiled: bool = False
    graphs: bool | None = None
    workers: int | None = bounded(None, least=1)
    threads: int | None = bounded(None, least=1)
    kernels: Kernels | None = None

    def __post_init__(self) -> None:
        check_bounds(self, "execution")
        if self.graphs and self.fused is False:
            raise UserError("execution.graphs needs the fused optimizer; leave execution.fused out")
        if self.compiled and self.graphs:
            raise UserError("execution.compiled and execution.graphs exclude each other; choose one")
        if self.kernels == "numba" and self.memory_format == "contiguous":
            raise UserError("execution.kernels numba needs channels_last; leave execution.memory_format out")
        if self.kernels == "numba" and self.compiled:
            raise UserError("execution.kernels numba and execution.compiled exclude each other; choose one")

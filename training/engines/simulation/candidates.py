"""Candidates for a run's execution profile: stage by stage, profiles that differ from the best so far in a setting."""

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch

from fedpareto.training.config.execution import ExecutionConfig, PrecisionChoice
from fedpareto.training.execution.machine import Machine
from fedpareto.training.execution.profile import Profile

#: Most clients at once that are tried on a GPU.
_GPU_WORKERS = 8


@dataclasses.dataclass(frozen=True)
class Scope:
    """Scope of a choice: what the user has set stays, and what the device and the machine cannot do is left out.

    Attributes:
        precision: the precision that was asked for.
        config: the settings that were asked for; the ones left out are to be chosen.
        device: device that trains.
        machine: machine that it is in.
    """

    precision: PrecisionChoice
    config: ExecutionConfig
    device: torch.device
    machine: Machine

    def kernels_fit(self) -> bool:
        """Return True if the kernels are left to be chosen and numba's go with the other settings."""
        config = self.config
        free = config.kernels is None and not config.compiled and config.memory_format != "contiguous"
        return free and self.precision in ("auto", "fp32") and self.device.type == "cpu"


def precisions(best: Profile, scope: Scope) -> Iterator[Profile]:
    """Yield the other precisions."""
    possible = scope.machine.precisions(scope.device)
    for name in possible if scope.precision == "auto" and best.kernels == "torch" else ():
        # fp16 needs its gradients scaled, which no graph can: only where there is no bf16.
        unwanted = name == "fp16" and ("bf16" in possible or best.graphs)
        if name != best.precision and not unwanted:
            yield dataclasses.replace(best, precision=name)


def memory_formats(best: Profile, scope: Scope) -> Iterator[Profile]:
    """Yield the other memory format."""
    if scope.config.memory_format is None and best.kernels == "torch":
        yield dataclasses.replace(best, memory_format="contiguous")


def kernels(best: Profile, scope: Scope) -> Iterator[Profile]:
    """Yield numba's kernels, which are compiled for it."""
    if scope.kernels_fit() and scope.machine.without_kernels() is None:
        yield dataclasses.replace(best, precision="fp32", memory_format="channels_last", kernels="numba")


def graphs(best: Profile, scope: Scope) -> Iterator[Profile]:
    """Yield CUDA graphs."""
    possible = scope.device.type == "cuda" and best.precision != "fp16" and not best.compiled
    if scope.config.graphs is None and possible:
        yield dataclasses.replace(best, graphs=True)


def optimizers(best: Profile, scope: Scope) -> Iterator[Profile]:
    """Yield the optimizer that is not fused."""
    # Only the fused optimizer reads its learning rate on the device, as a graph must.
    if scope.config.fused is None and not best.graphs:
        yield dataclasses.replace(best, fused=False)


def workers(best: Profile, scope: Scope) -> Iterator[Profile]:
    """Yield the numbers of clients at once, powers of two; they share the threads."""
    threads = scope.machine.threads()
    most = _GPU_WORKERS if scope.device.type == "cuda" else threads
    if scope.config.workers is None:
        for count in (2**power for power in range(1, int(math.log2(most)) + 1)):
            yield dataclasses.replace(best, workers=count, threads=scope.config.threads or max(1, threads // count))


#: Stages of a choice, in their order: what is decided one after the other.
STAGES: tuple[Callable[[Profile, Scope], Iterator[Profile]], ...] = (
    precisions,
    memory_formats,
    kernels,
    graphs,
    optimizers,
    workers,
)

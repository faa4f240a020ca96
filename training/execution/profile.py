"""Execution profiles of local training: precision, memory format, kernels, optimizer, clients at once.

A profile does not change the training that a round does. It changes only the speed of its arithmetic and, for most
settings, the last bits of its results.
"""

import dataclasses
from typing import TYPE_CHECKING

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.training.config.execution import ExecutionConfig, Kernels, MemoryFormat, Precision, PrecisionChoice
from fedpareto.training.execution.machine import THIS_MACHINE, Machine

if TYPE_CHECKING:
    import torch


def _kernels_need_fp32() -> str:
    return (
        f"execution.kernels numba computes in fp32; say {option('precision', 'fp32')}, or "
        f"{option('execution.kernels', 'torch')}"
    )


@dataclasses.dataclass(frozen=True)
class Profile:
    """Execution profile: a complete choice of the settings of ``ExecutionConfig``.

    For one device the same profile gives the same bytes. ``workers`` never changes them; every other field may change
    last bits.
    """

    precision: Precision = "fp32"
    memory_format: MemoryFormat = "channels_last"
    fused: bool = True
    compiled: bool = False
    graphs: bool = False
    workers: int = 1
    threads: int = 1
    kernels: Kernels = "torch"

    def __post_init__(self) -> None:
        # The same rules as for what a user asks for.
        self.chosen()
        if self.kernels == "numba" and self.precision != "fp32":
            raise UserError(_kernels_need_fp32())

    def __str__(self) -> str:
        parts = [self.memory_format.replace("_", "-"), self.precision]
        parts += [name for name in ("compiled", "graphs") if getattr(self, name)]
        parts += [] if self.fused else ["optimizer not fused"]
        parts += ["numba's kernels"] if self.kernels == "numba" else []
        clients, threads = counted(self.workers, "client"), counted(self.threads, "thread")
        return f"{' '.join(parts)}, {clients} at a time on {threads}{'' if self.workers == 1 else ' each'}"

    @property
    def torch_format(self) -> "torch.memory_format":
        """Memory format as torch's value."""
        import torch  # noqa: PLC0415 - this module is read before torch is needed

        return torch.channels_last if self.memory_format == "channels_last" else torch.contiguous_format

    def chosen(self) -> ExecutionConfig:
        """Return the profile as a configuration with nothing left out."""
        names = [field.name for field in dataclasses.fields(ExecutionConfig)]
        return ExecutionConfig(**{name: getattr(self, name) for name in names})


def check_possible(
    device: "torch.device", precision: PrecisionChoice, config: ExecutionConfig, machine: Machine = THIS_MACHINE
) -> None:
    """Refuse settings that a device of a machine cannot do.

    Raises:
        UserError: the precision, CUDA graphs or the kernels are not possible; the message says what is possible.
    """
    possible = machine.precisions(device)
    if precision not in ("auto", *possible):
        raise UserError(
            f"precision {precision} is not possible on {device}; it can do: {', '.join(possible)} (or say auto)"
        )
    if config.graphs and device.type != "cuda":
        raise UserError(
            f"execution.graphs needs a GPU and the device is {device}; say {option('execution.graphs', 'false')}"
        )
    if config.graphs and precision == "fp16":
        raise UserError(
            "execution.graphs is not possible with fp16, whose gradient scaler decides on the CPU; use bf16"
        )
    if config.kernels == "numba":
        _check_kernels(device, precision, machine)


def _check_kernels(device: "torch.device", precision: PrecisionChoice, machine: Machine) -> None:
    """Refuse numba's kernels where they cannot be used."""
    if device.type != "cpu":
        raise UserError(
            f"execution.kernels numba is for CPUs and the device is {device}; say "
            f"{option('execution.kernels', 'torch')}"
        )
    if precision not in ("auto", "fp32"):
        raise UserError(_kernels_need_fp32())
    reason = machine.without_kernels()
    if reason is not None:
        raise UserError(
            f"execution.kernels numba is not possible: {reason}; or say {option('execution.kernels', 'torch')}"
        )


def complete_profile(precision: PrecisionChoice, config: ExecutionConfig) -> Profile | None:
    """Return the profile of a configuration that leaves nothing out; None if anything is left out."""
    values = dataclasses.asdict(config)
    if precision == "auto" or None in values.values():
        return None
    return Profile(precision=precision, **values)


def default_profile(precision: PrecisionChoice, config: ExecutionConfig, machine: Machine = THIS_MACHINE) -> Profile:
    """Return the profile of a configuration without measurements; settings left out get widely suitable values."""
    return Profile(
        precision="fp32" if precision == "auto" else precision,
        memory_format=config.memory_format or "channels_last",
        fused=config.fused is not False,
        compiled=config.compiled,
        graphs=config.graphs is True,
        workers=config.workers or 1,
        threads=config.threads or machine.threads(),
        kernels=config.kernels or "torch",
    )


def apply_to_torch(profile: Profile) -> None:
    """Apply a profile to torch's global settings: tf32 or full precision, and the same kernels in every run."""
    import torch  # noqa: PLC0415

    torch.backends.cuda.matmul.allow_tf32 = profile.precision == "tf32"
    torch.backends.cudnn.allow_tf32 = profile.precision == "tf32"
    torch.backends.cudnn.deterministic = True

"""Machine that trains: the threads, the precisions and the kernels that a profile has to choose from."""

from typing import TYPE_CHECKING, cast

from fedpareto.training.config.execution import Precision

if TYPE_CHECKING:
    import torch


class Machine:
    """Machine that trains, as it says itself what it can do."""

    def threads(self) -> int:
        """Return the number of threads that torch computes with."""
        import torch  # noqa: PLC0415 - this module is read before torch is needed

        return torch.get_num_threads()

    def precisions(self, device: "torch.device") -> list[Precision]:
        """Return the precisions that a device can compute in, fp32 first."""
        import torch  # noqa: PLC0415

        possible = {"fp32": True}
        if device.type == "cuda":
            capability = torch.cuda.get_device_capability(device)
            possible |= {"tf32": capability >= (8, 0), "bf16": capability >= (8, 0), "fp16": capability >= (5, 3)}
        elif torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            # oneDNN's own answers; torch has no public ones.
            mkldnn = torch.ops.mkldnn
            possible |= {"bf16": mkldnn._is_mkldnn_bf16_supported(), "fp16": mkldnn._is_mkldnn_fp16_supported()}
        return [cast("Precision", name) for name, yes in possible.items() if yes]

    def without_kernels(self) -> str | None:
        """Return the reason why numba's kernels cannot be used, None if they can; the first call compiles them."""
        from fedpareto.training.kernels.available import unavailable  # noqa: PLC0415

        return unavailable()

    def compiles_kernels(self) -> bool:
        """Return True if ``without_kernels`` is going to compile them."""
        from fedpareto.training.kernels.available import to_be_compiled  # noqa: PLC0415

        return to_be_compiled()

    def forgets_kernels(self) -> str | None:
        """Return the reason why compiled kernels are not kept for the next start, or None; numba must be importable."""
        from fedpareto.training.kernels.available import not_kept  # noqa: PLC0415

        return not_kept()


#: The machine that this process runs on.
THIS_MACHINE = Machine()

"""Runtimes: torch or onnxruntime on a device, which turn modules into calls that can be timed."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from fedpareto.search.runtimes.extras import require_onnx
from fedpareto.search.runtimes.onnx_model import open_session, to_onnx
from fedpareto.search.runtimes.stopwatch import Call
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.execution.device import resolve_device

if TYPE_CHECKING:
    import onnx

RuntimeName = Literal["torch", "onnxruntime"]

_CUDA = "CUDAExecutionProvider"


class Measurable(NamedTuple):
    """A module in evaluation mode and an example of its input."""

    module: nn.Module
    example: Tensor


class Runtime(Protocol):
    """A runtime of networks, with its threads and its device."""

    def calls(self, group: Sequence[Measurable]) -> list[Call]:
        """Return a call for each module that runs it once, to its end, on its example."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that decide how fast it is."""


@contextlib.contextmanager
def open_runtime(name: RuntimeName, device: torch.device, threads: int) -> Iterator[Runtime]:
    """Yield a runtime; torch's own number of threads is restored afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield TorchRuntime(device) if name == "torch" else OnnxRuntime(device, threads)
    finally:
        torch.set_num_threads(before)


def check_runtime(name: RuntimeName, device: str) -> torch.device:
    """Return the device, ``cpu`` or ``cuda``, if the runtime is installed and can use it.

    Raises:
        UserError: the machine lacks the device, or a package is missing; it names the line that installs it.
    """
    resolved = resolve_device(device)
    if name == "onnxruntime":
        require_onnx()
        import onnxruntime  # noqa: PLC0415 - an extra

        if resolved.type == "cuda" and _CUDA not in onnxruntime.get_available_providers():
            raise UserError(
                "the installed onnxruntime cannot use a GPU; install one that can with: pip install onnxruntime-gpu"
            )
    return resolved


def device_name(device: torch.device) -> str:
    """Return ``cpu`` or the GPU's name."""
    return "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device)


class TorchRuntime:
    """Eager torch in channels-last layout, without autograd."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def calls(self, group: Sequence[Measurable]) -> list[Call]:
        """Return a call for each module that runs it once, to its end, on its example."""
        return [self._call(measurable) for measurable in group]

    def versions(self) -> dict[str, str]:
        """Return the version of torch."""
        return {"torch": str(torch.__version__)}

    def _call(self, measurable: Measurable) -> Call:
        module = measurable.module.to(self.device).to(memory_format=torch.channels_last)
        example = measurable.example.to(self.device, memory_format=torch.channels_last)

        def call() -> Tensor:
            with torch.inference_mode():
                output: Tensor = module(example)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            return output

        return call


class OnnxRuntime:
    """onnxruntime, its inputs and outputs kept where they are computed."""

    def __init__(self, device: torch.device, threads: int) -> None:
        self.device, self.threads = device, threads
        self.providers = ("CPUExecutionProvider",) if device.type == "cpu" else (_CUDA, "CPUExecutionProvider")

    def calls(self, group: Sequence[Measurable]) -> list[Call]:
        """Return a call for each module that runs it once, to its end, on its example."""
        models = export_each(group)
        return [self._call(model, member.example) for model, member in zip(models, group, strict=True)]

    def versions(self) -> dict[str, str]:
        """Return the versions of onnxruntime and of the exporter, which decides the operators."""
        import onnxruntime  # noqa: PLC0415 - an extra

        return {"onnxruntime": onnxruntime.__version__, "torch": str(torch.__version__)}

    def _call(self, model: "onnx.ModelProto", example: Tensor) -> Call:
        import onnxruntime  # noqa: PLC0415 - an extra

        session = open_session(model, self.threads, self.providers)
        where = (self.device.type, self.device.index or 0)
        given = onnxruntime.OrtValue.ortvalue_from_numpy(example.numpy(), *where)
        sides = [axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
        result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(sides, "float32", *where)
        binding = session.io_binding()
        binding.bind_ortvalue_input(model.graph.input[0].name, given)
        binding.bind_ortvalue_output(model.graph.output[0].name, result)

        def call() -> object:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            return result

        return call


class _Apart(nn.Module):
    """Modules side by side, each with an input and an output of its own."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(member(x) for member, x in zip(self.members, inputs, strict=True))


def export_each(group: Sequence[Measurable]) -> list["onnx.ModelProto"]:
    """Return an ONNX model for each module of a group; exporting them together takes a third of the time."""
    from onnx.utils import Extractor  # noqa: PLC0415 - an extra

    inputs = [f"input{number}" for number in range(len(group))]
    outputs = [f"output{number}" for number in range(len(group))]
    apart = _Apart([member.module for member in group]).eval()
    whole = to_onnx(apart, [member.example for member in group], (inputs, outputs), dynamic_batch=False)
    extractor = Extractor(whole)
    models = [extractor.extract_model([given], [made]) for given, made in zip(inputs, outputs, strict=True)]
    if sum(len(model.graph.node) for model in models) != len(whole.graph.node):
        raise RuntimeError("the models of a group share operators")
    return models

"""ONNX files of networks, in fp32, fp16 and int8."""

import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedpareto.fitness.costs import FilePrecision
from fedpareto.search.export.deploy import INPUT, OUTPUT
from fedpareto.search.runtimes.onnx_model import to_onnx

if TYPE_CHECKING:
    import onnx

Images = NDArray[np.float32]

#: Operators int8 files compute on bytes.
_QUANTISED = ("Conv", "Gemm", "Add", "Relu", "AveragePool")


def onnx_of(network: nn.Module, example: Tensor) -> "onnx.ModelProto":
    """Return a network in evaluation mode as an fp32 model from ``images`` (batch, C, side, side) to ``logits``.

    Any batch size is understood. ``example`` has two or more images.
    """
    model = to_onnx(network, (example,), ((INPUT,), (OUTPUT,)), dynamic_batch=True)
    # Shapes in between can be inferred again, and take as much room as the nodes.
    model.graph.ClearField("value_info")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return model


def at_precision(
    model: "onnx.ModelProto", precision: FilePrecision, calibration: Iterable[Images]
) -> "onnx.ModelProto":
    """Return an fp32 model at a precision; inputs and outputs stay fp32.

    Args:
        model: as ``onnx_of`` returns it.
        precision: precision of weights and, where the runtime can, of arithmetic.
        calibration: batches of normalised training images, used by int8.
    """
    if precision == "fp16":
        return _fp16(model)
    return model if precision == "fp32" else _int8(model, calibration)


def save_onnx(path: Path, model: "onnx.ModelProto", metadata: Mapping[str, str]) -> None:
    """Write a model with its metadata."""
    import onnx  # noqa: PLC0415 - an extra

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())


def _fp16(model: "onnx.ModelProto") -> "onnx.ModelProto":
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - an extra

    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    converted.graph.ClearField("value_info")
    return converted


def _int8(model: "onnx.ModelProto", calibration: Iterable[Images]) -> "onnx.ModelProto":
    """Return the model with int8 weights, one scale an output channel, and uint8 feature maps.

    Settled by measurement on 5,000 validation images of CIFAR-10, for a MobileNet of 13.5 M MACs whose accuracy of
    46.0 % no choice lowered (46.1 to 46.4 %). What differed is how often the file names fp32's class, and the root
    mean square error of the logits; as it stands they are 95.8 % and 0.071.

    - Ranges: the mean over batches of their extremes (97.0 %, 0.056) beats the extremes of all images (96.1 %,
      0.073). On 1,500 images percentiles were as close, entropy no closer than extremes; both took twice as long.
    - Weights: one scale a channel beats one a tensor at 7 bits (95.7 %, 0.069 against 94.9 %, 0.093).
    - 7 bits: 8 are closer (97.0 %, 0.056), but by onnxruntime's documentation they may saturate on x86 processors
      without VNNI, where a verification on another machine would not see it.
    - Signed feature maps were as exact and took 2.3 times as long on x86.
    - Squeeze-excite in fp32 gains nothing (96.8 %, 0.054) and makes the file a quarter larger.
    """
    import onnx  # noqa: PLC0415 - an extra
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, _quiet():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            _Reader(calibration),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_QUANTISED),
            nodes_to_exclude=_of_group_norms(model),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},
        )
        quantised = onnx.load(path)
    quantised.graph.ClearField("value_info")
    return quantised


def _of_group_norms(model: "onnx.ModelProto") -> list[str]:
    """Return the names of the additions of constants: GroupNorm's, which stays in fp32."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if node.op_type == "Add" and constants & set(node.input)]


class _Reader:
    """Hands calibration batches to onnxruntime."""

    def __init__(self, batches: Iterable[Images]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Images] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop warnings for the time of the block: quantisation recommends passes that ``onnx_of`` has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)

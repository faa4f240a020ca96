"""Conversion of networks and their parts to ONNX models, and onnxruntime sessions that run them."""

import contextlib
import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    import onnx
    import onnxruntime

#: Version of ONNX operators that every onnxruntime of the last years reads.
OPSET = 18


def to_onnx(
    module: nn.Module, inputs: Sequence[Tensor], names: tuple[Sequence[str], Sequence[str]], *, dynamic_batch: bool
) -> "onnx.ModelProto":
    """Return ``module`` as an ONNX model, through ``torch.export``.

    Args:
        module: the module, in evaluation mode.
        inputs: example inputs; with a dynamic batch they have two or more images.
        names: names of the model's inputs and outputs.
        dynamic_batch: true if the first dimension of the inputs may be any.
    """
    batch = torch.export.Dim("batch")
    shapes = ({0: batch},) * len(inputs) if dynamic_batch else None
    # The exporter remarks on its own progress.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)
        exported = torch.onnx.export(
            program,
            input_names=names[0],
            output_names=names[1],
            opset_version=OPSET,
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return _without_traces(exported.model_proto)


def open_session(
    model: "onnx.ModelProto | bytes", threads: int, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> "onnxruntime.InferenceSession":
    """Return a session that runs ``model`` on the first of ``providers`` that can, with ``threads`` CPU threads."""
    import onnxruntime  # noqa: PLC0415 - an extra

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its warnings are about the insides of models.
    options.log_severity_level = 3
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=list(providers))


def _without_traces(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return the model without the exporter's notes, which name files of the machine it ran on."""
    graph = model.graph
    for noted in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph):
        noted.ClearField("metadata_props")
        noted.ClearField("doc_string")
    return model

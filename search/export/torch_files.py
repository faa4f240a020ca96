"""TorchScript and ExportedProgram files of networks, in fp32."""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

#: Name of the metadata inside the files.
METADATA = "metadata.json"

#: Records torch writes by itself when an archive is finished.
_OWN = ("version", "byteorder", ".data/serialization_id", ".data/version")


def save_torchscript(path: Path, network: nn.Module, example: Tensor, metadata: Mapping[str, str]) -> None:
    """Write a network in evaluation mode, traced and frozen; any batch size is understood."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecated by torch in favour of torch.export, and still what many devices run.
        warnings.simplefilter("ignore")
        traced = torch.jit.freeze(torch.jit.trace(network, example))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files={METADATA: json.dumps(dict(metadata))})
    buffer.seek(0)
    path.write_bytes(_without_debug_records(buffer))


def load_torchscript(path: Path) -> tuple[torch.nn.Module, dict[str, str]]:
    """Return the module of a TorchScript file, and its metadata."""
    files = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: torch.nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
            str(path), map_location="cpu", _extra_files=files
        )
    return module, json.loads(files[METADATA])


def save_program(path: Path, network: nn.Module, example: Tensor, metadata: Mapping[str, str]) -> None:
    """Write a network in evaluation mode as a ``torch.export`` program; any batch size is understood."""
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.graph.nodes:
        # They name files of the machine.
        for trace in ("stack_trace", "source_fn_stack", "from_node"):
            node.meta.pop(trace, None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(dict(metadata))})
    path.write_bytes(buffer.getvalue())


def load_program(path: Path) -> tuple[torch.nn.Module, dict[str, str]]:
    """Return the module of a ``torch.export`` file, and its metadata."""
    files = {METADATA: ""}
    module = torch.export.load(str(path), extra_files=files).module()
    return module, json.loads(files[METADATA])


def _without_debug_records(archive: io.BytesIO) -> bytes:
    """Return a TorchScript archive without the records of source lines, which name files of the machine."""
    reader, stripped = torch._C.PyTorchFileReader(archive), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(stripped)
    for name in reader.get_all_records():
        if name not in _OWN and not name.endswith(".debug_pkl"):
            content = reader.get_record(name)
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    return stripped.getvalue()

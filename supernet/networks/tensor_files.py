"""Reader of a network's tensors from safetensors files, which checks names, shapes, types and values."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import Tensors


def load_tensors(path: Path) -> Tensors:
    """Load all tensors of a safetensors file, unchecked.

    Raises:
        UserError: it is missing, cut short, or no such file.
    """
    if not path.is_file():
        raise UserError(f"{path} is {'no file' if path.exists() else 'missing'}")
    try:
        tensors: Tensors = load_file(path)
    # A header that lies makes torch raise what it likes.
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is cut short or no safetensors file ({reason:.200})") from error
    return tensors


def read_tensors(
    path: Path,
    shapes: Mapping[str, Sequence[int]],
    network: str,
    types: Mapping[str, torch.dtype] | None = None,
) -> Tensors:
    """Read the tensors of a network, in the order of their names in ``shapes``.

    Args:
        path: the file.
        shapes: shape of every tensor of the network, by name.
        network: the network's name in errors.
        types: types of the tensors that are not float32, by name.

    Raises:
        UserError: the file cannot be read, or holds other tensors, or a value that is not finite.
    """
    tensors = load_tensors(path)
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != {n: tuple(s) for n, s in shapes.items()}:
        raise UserError(f"{path} holds another network than {network}")
    for name, tensor in tensors.items():
        wanted = (types or {}).get(name, torch.float32)
        if tensor.dtype != wanted:
            raise UserError(f"{path}: {name} holds {tensor.dtype}; it must hold {wanted}")
        if not is_finite(tensor):
            raise UserError(f"{path}: {name} holds a value that is not finite")
    return {name: tensors[name] for name in shapes}


def is_finite(tensor: Tensor) -> bool:
    """Return True if no value of a tensor is infinite or NaN."""
    # One pass that is much faster than isfinite; a sum of finite values may still be too large.
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with an infinite value or NaN, or None; all are on one device.

    Where all are finite, as nearly always, a GPU is waited for once.
    """
    if not tensors or bool(torch.stack([tensor.sum() for tensor in tensors.values()]).isfinite().all()):
        return None
    return next((name for name, tensor in tensors.items() if not is_finite(tensor)), None)

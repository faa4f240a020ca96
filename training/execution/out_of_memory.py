"""Errors of a full memory, told apart from others: they name the network and the batch that did not fit."""

import contextlib
from collections.abc import Iterator

import torch

from fedpareto.supernet.architecture import Architecture
from fedpareto.supernet.common.terminal.words import option

#: What torch's CPU allocator, oneDNN, CUDA and its libraries say; they raise plain RuntimeErrors.
_PHRASES = (
    *("can't allocate memory", "could not allocate", "could not create a memory object"),
    *("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)


class OutOfMemoryError(Exception):
    """Error of a network and a batch that do not fit on a device.

    Attributes:
        architecture: the network.
        batch_size: number of images of a batch.
        device: device that they did not fit on.
    """

    def __init__(self, architecture: Architecture, batch_size: int, device: torch.device) -> None:
        super().__init__(f"out of memory on {device} at batch {batch_size}")
        self.architecture, self.batch_size, self.device = architecture, batch_size, device

    def advice(self, setting: str) -> str:
        """Return the setting that asks for the next smaller batch, or other advice where there is no smaller batch."""
        if self.batch_size < 4:
            return f" on a device with more memory ({option('device')})"
        return f" {option(setting)} {self.batch_size // 2}"


@contextlib.contextmanager
def out_of_memory(architecture: Architecture, batch_size: int, device: torch.device) -> Iterator[None]:
    """Turn the errors of a full memory into one that names the network and the batch.

    Raises:
        OutOfMemoryError: memory ran out inside.
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemoryError(architecture, batch_size, device) from error
    except RuntimeError as error:
        if tells_of_memory(error):
            raise OutOfMemoryError(architecture, batch_size, device) from error
        raise


def tells_of_memory(error: BaseException) -> bool:
    """Return True if an error, or an error that caused it, is one of a full memory.

    Causes count, because ending the capture of a CUDA graph fails with another error after memory has run out in it.
    """
    before = error.__cause__ or error.__context__
    if isinstance(error, torch.OutOfMemoryError) or any(phrase in str(error) for phrase in _PHRASES):
        return True
    return before is not None and tells_of_memory(before)

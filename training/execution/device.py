"""Devices that networks run on, and copies of tensors to them."""

import torch
from torch import Tensor

from fedpareto.supernet.common.errors import UserError


def resolve_device(name: str) -> torch.device:
    """Return the device ``name`` stands for: ``auto`` is the first GPU if there is one, else the CPU.

    Raises:
        UserError: the name means nothing, or the machine lacks the device; the message lists the devices it has.
    """
    have = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        return torch.device(have[1] if len(have) > 1 else "cpu")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in have:
        raise UserError(f"device {name!r} is not on this machine; it has: {', '.join(have)} (or say auto)")
    return torch.device(wanted)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; a copy from the CPU's memory does not wait for the device's other work.

    A copy out of ordinary memory would first wait for all work in a GPU's stream.
    """
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)

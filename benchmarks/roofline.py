"""The machine's limit, measured: a large matrix product, and how near to it training comes."""

import time

import torch

from fedpareto.training.execution.profile import Profile

#: Floating-point operations of a training step for a multiply–accumulate of the forward pass: two there, four back.
_FLOPS_A_MAC = 6


def matmul_peak(profile: Profile, device: torch.device) -> float:
    """Return the FLOP/s of a large matrix product in the profile's precision: what the machine can do at best."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(profile.precision, torch.float32)
    side, repeats = (8192, 10) if device.type == "cuda" else (2048, 4)
    a, best = torch.randn(side, side, device=device).to(dtype), float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        (a @ a).flatten()[0].item()
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def share_of_peak(rate: float, macs: int, peak: float) -> float:
    """Return the share of ``peak`` FLOP/s that training ``rate`` images a second of a network of ``macs`` takes."""
    return rate * macs * _FLOPS_A_MAC / peak

"""Torchvision's transforms draw from torch's global generator; here they draw from the caller's."""

import contextlib
import threading
from collections.abc import Iterator

import torch

# Clients that train at once share the global generator: one of them uses it at a time.
_GLOBAL_GENERATOR = threading.Lock()


@contextlib.contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Seed the global CPU generator from ``generator`` inside, and leave it as it was."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

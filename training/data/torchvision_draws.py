"""Random draws of torchvision's transforms from the caller's generator, in place of torch's global one."""

import contextlib
import threading
from collections.abc import Iterator

import torch

# Clients that train at once share the global generator: one of them uses it at a time.
_GLOBAL_GENERATOR = threading.Lock()


@contextlib.contextmanager
def drawing_from(generator: torch.Generator) -> Iterator[None]:
    """Seed the global CPU generator from ``generator`` within the block, and restore it afterwards."""
    seed = int(torch.randint(2**62, (), generator=generator))
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield

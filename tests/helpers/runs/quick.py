"""Settings of short runs from Python, with nothing left to be chosen by measurement."""

from collections.abc import Mapping
from typing import Any

#: What is measured takes long and may end otherwise every time.
_CHOSEN = {"memory_format": "channels_last", "fused": True, "kernels": "torch", "workers": 1, "threads": 1}

#: For ``fedpareto.train``.
QUICK: Mapping[str, Any] = {
    "precision": "fp32",
    "device": "cpu",
    "execution": _CHOSEN,
    "clients_per_round": 2,
    "client_epochs": 1,
    "client_batch_size": 8,
    "evaluation_probes": 2,
    "tracking_wandb": "off",
    "progress": False,
}

"""Records of rounds that were never trained, for what shows and mirrors them."""

from pathlib import Path

import pytest

from fedpareto.training.evaluation.evaluator import Probe
from fedpareto.training.trackers.records import RoundRecord
from fedpareto.training.traffic import Traffic

#: A round of which nothing is evaluated.
QUIET = RoundRecord(
    round=4,
    train_loss=1.2345,
    lr=0.1,
    beta=0.9,
    clients=(),
    failures={},
    traffic=Traffic(1, 1),
    bytes_whole=1,
    seconds=12.34,
    sgd_seconds=12.0,
    overhead_share=0.0276,
    evaluation_seconds=0.0,
    probes=(),
    trained=(),
)


def record(number: int, trained: tuple[int, ...] = (3, 0, 2), *, evaluated: bool = True) -> RoundRecord:
    return RoundRecord(
        round=number,
        train_loss=2.5 / number,
        lr=0.05,
        beta=0.9,
        clients=(),
        failures={"shape": 2, "error": 1},
        traffic=Traffic(1000 * number, 2000 * number),
        bytes_whole=5000 * number,
        seconds=2.0,
        sgd_seconds=1.9,
        overhead_share=0.05,
        evaluation_seconds=0.25,
        probes=(Probe(40_416, 2498, 0.25), Probe(146_464, 20_954, 0.75)) if evaluated else (),
        trained=trained,
        evaluation_failures=({"client": 1, "failure": "lost", "reason": "it is gone"},) if evaluated else (),
        evaluation_traffic=Traffic(30, 40) if evaluated else Traffic(),
    )


def alone(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Hide every login and keep wandb's own files in ``home``."""
    for name in ("WANDB_API_KEY", "NETRC", "WANDB_MODE", "WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))

import pytest
import torch

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.execution.device import resolve_device, sent


def test_the_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


def test_auto_is_the_first_gpu_or_else_the_cpu() -> None:
    assert resolve_device("auto") == torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("gpus", "name", "found"), [(2, "auto", "cuda:0"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1")]
)
def test_a_gpu_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, gpus: int, name: str, found: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert resolve_device(name) == torch.device(found)


@pytest.mark.parametrize("name", ["cuda:7", "cuda", "gpu", "mps", ""])
def test_a_device_the_machine_lacks_is_an_error_that_lists_what_it_has(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=r"is not on this machine; it has: cpu \(or say auto\)"):
        resolve_device(name)


def test_what_is_sent_to_a_gpu_goes_through_pinned_memory_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor, pinned, calls = torch.arange(3), torch.arange(3), []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda given: pinned if given is tensor else None)

    def to(given: torch.Tensor, device: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
        calls.append((given is pinned, device, non_blocking))
        return given

    monkeypatch.setattr(torch.Tensor, "to", to)
    gpu = torch.device("cuda:1")
    assert sent(tensor, gpu) is pinned
    assert calls == [(True, gpu, True)]


def test_on_the_cpu_nothing_is_copied() -> None:
    tensor = torch.arange(3)
    assert sent(tensor, torch.device("cpu")) is tensor

import pytest
import torch

from supernet.errors import UserError
from training.devices import resolve_device


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

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from fedpareto.training.clients.sgd import Sgd


def _trained(optimizer: type[torch.optim.SGD], lr: float | Tensor, *, fused: bool) -> list[Tensor]:
    """Return parameters and momentum after a few steps with clipping, as local training takes them."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(288, 10))
    parameters = list(network.parameters())
    groups = [{"params": [each], "weight_decay": 0.1 / number} for number, each in enumerate(parameters, 1)]
    sgd = optimizer(groups, lr=lr, momentum=0.9, fused=fused or None)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(4):
        sgd.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(network(torch.randn(4, 3, 8, 8)), torch.arange(4))
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 0.5)
        scaler.step(sgd)
        scaler.update()
    return [*parameters, *(sgd.state[each]["momentum_buffer"] for each in parameters)]


@pytest.mark.parametrize("fused", [False, True])
def test_it_computes_what_torchs_sgd_does_to_the_bit(fused: bool) -> None:
    ours, torchs = (_trained(cls, 0.1, fused=fused) for cls in (Sgd, torch.optim.SGD))
    assert len(ours) == 12
    assert all(torch.equal(a, b) for a, b in zip(ours, torchs, strict=True))


def test_parameters_of_its_steps_have_no_history() -> None:
    assert all(tensor.is_leaf for tensor in _trained(Sgd, torch.tensor(0.1), fused=True))


@pytest.mark.slow
def test_torch_compile_is_not_imported_for_it() -> None:
    program = (
        "import sys, torch\n"
        "from fedpareto.training.clients.sgd import Sgd\n"
        "parameter = torch.nn.Parameter(torch.ones(3))\n"
        "sgd = Sgd([parameter], lr=0.5, momentum=0.9)\n"
        "for _ in range(2):\n"
        "    sgd.zero_grad()\n"
        "    parameter.sum().backward()\n"
        "    sgd.step()\n"
        "print(round(parameter[0].item(), 6), 'torch._dynamo' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "-0.45 False\n"

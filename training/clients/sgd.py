"""SGD of torch that does not import torch.compile."""

import inspect
from typing import Any

import torch


class Sgd(torch.optim.SGD):
    """torch's SGD, its methods called as they were written.

    torch wraps them for torch.compile, and the wrappers import that at their first call: 1.6 seconds and 150 MB, longer
    than a short run trains. The numbers are the same.
    """

    add_param_group: Any = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad: Any = inspect.unwrap(torch.optim.SGD.zero_grad)
    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))

"""SGD as torch has it, without the import of torch.compile that slows down the start of a run."""

import inspect
from typing import Any

import torch


class Sgd(torch.optim.SGD):
    """SGD of torch, its methods called without torch's wrappers.

    torch wraps them for torch.compile, and the wrappers import that at their first call: 1.6 seconds and 150 MB, longer
    than a short run trains. The numbers are the same.
    """

    add_param_group: Any = inspect.unwrap(torch.optim.SGD.add_param_group)
    zero_grad: Any = inspect.unwrap(torch.optim.SGD.zero_grad)
    step: Any = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))

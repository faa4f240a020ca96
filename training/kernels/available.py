"""Check of the kernels on this machine: numba must be there and compile them, and their results must equal torch's."""

import functools
import importlib.util
import itertools
import shutil
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the library's own convention

#: Relative difference from torch that is not rounding any more.
_TOLERANCE = 1e-3

_EPSILON = 1e-5


@functools.cache
def unavailable() -> str | None:
    """Return the reason why the kernels cannot be used; None if they can.

    It compiles all of them, so that no step has to: at most half a minute, once a machine.
    """
    try:
        importlib.import_module("numba")
    except Exception as error:  # numba refuses versions of numpy, settings of its own and libraries that do not load
        if isinstance(error, ModuleNotFoundError) and error.name == "numba":
            return "numba is not installed; install it with: pip install 'fedpareto[fast]'"
        return f"numba cannot be imported here ({_first_line(error)})"
    try:
        return _try()
    except Exception as error:  # what numba and LLVM raise has no class in common
        return f"numba cannot compile them here ({_first_line(error)})"


def to_be_compiled() -> bool:
    """Return True if ``unavailable`` is going to compile: numba is there, and no compiled kernels are kept."""
    if unavailable.cache_info().currsize or importlib.util.find_spec("numba") is None:
        return False
    try:
        from fedpareto.training.kernels.compiled import FOLDER  # noqa: PLC0415 - numba is there
    except Exception:  # numba cannot be imported, which ``unavailable`` tells
        return False
    return FOLDER is None or next(FOLDER.rglob("*.nbi"), None) is None


def not_kept() -> str | None:
    """Return the reason why compiled kernels are not kept for the next start, or None; numba must be importable."""
    from fedpareto.training.kernels.compiled import NOT_KEPT  # noqa: PLC0415 - numba is there

    return NOT_KEPT


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _try() -> str | None:
    from fedpareto.training.kernels.compiled import FOLDER, keep_nothing  # noqa: PLC0415 - numba is there by now

    try:
        return _difference()
    except OSError:  # the disk is full, or refuses to be written or read
        keep_nothing()
        return _difference()
    except Exception:  # what is kept may be damaged: once more, without it
        if FOLDER is None:
            raise
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        return _difference()


def _difference() -> str | None:
    """Return the first difference of the kernels' results from torch's, over all kernels and strides, or None."""
    from fedpareto.training.kernels.chain import Chain, ChainLayer  # noqa: PLC0415
    from fedpareto.training.kernels.depthwise import KERNELS, STRIDES  # noqa: PLC0415

    for kernel, stride in itertools.product(KERNELS, STRIDES):
        layers = (
            ChainLayer("dense", 3, 1, _EPSILON, "relu"),
            ChainLayer("pointwise", 1, 1, _EPSILON, "hswish"),
            ChainLayer("depthwise", kernel, stride, _EPSILON, "none"),
        )
        tensors = _drawn(kernel)
        ours = _results(lambda x, *weights, layers=layers: Chain.apply(x, layers, *weights), tensors)
        theirs = _results(functools.partial(_by_torch, stride), tensors)
        for name, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if not torch.allclose(one, other, _TOLERANCE, _TOLERANCE * float(other.abs().max())):
                return f"they compute something else than torch here (kernel {kernel}, stride {stride}, tensor {name})"
    return None


def _drawn(kernel: int) -> list[Tensor]:
    """Return random x, and weight, γ and β of three convolutions; their 24 channels are not whole vectors."""
    generator = torch.Generator().manual_seed(kernel)
    weights = [(8, 3, 3, 3), (24, 8, 1, 1), (24, 1, kernel, kernel)]
    shapes = [shape for weight in weights for shape in (weight, weight[:1], weight[:1])]
    return [torch.randn(shape, generator=generator) for shape in ((2, 3, 9, 5), *shapes)]


def _results(run: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """Return the result of a function of tensors, and its gradients."""
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = run(*leaves)
    # A plain sum is what a norm takes away.
    weight = torch.linspace(-1, 1, out.numel()).view(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weight).sum(), leaves)]


def _by_torch(stride: int, x: Tensor, *parameters: Tensor) -> Tensor:
    for number, activation in enumerate((F.relu, F.hardswish, None)):
        weight, scale, bias = parameters[3 * number : 3 * number + 3]
        last = activation is None
        step, groups = (stride, len(weight)) if last else (1, 1)
        y = F.conv2d(x, weight, None, step, weight.shape[-1] // 2, groups=groups)
        z = F.batch_norm(y, None, None, scale, bias, training=True, eps=_EPSILON)
        x = z if activation is None else activation(z)
    return x

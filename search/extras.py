"""Optional packages: refused in one line when they are missing. Does not import torch."""

import importlib

from supernet.errors import UserError

_ONNX = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Refuse to go on without the packages of the ``export`` extra.

    Raises:
        UserError: one is missing; it names the line that installs it.
    """
    for name in _ONNX:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"{name} is not installed; install it with: pip install 'fedpareto[export]'") from error

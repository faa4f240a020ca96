"""Check for the packages that export and onnxruntime need. Does not import torch."""

from fedpareto.supernet.common.extras import require_extra

_ONNX = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Refuse to go on without the packages of the ``export`` extra.

    Raises:
        UserError: one is missing; it names the line that installs it.
    """
    require_extra("export", _ONNX)

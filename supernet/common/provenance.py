"""Provenance of files: the versions, the machine and the command that made them, as a file beside them says it."""

import importlib.metadata
import platform
import re
from collections.abc import Sequence
from typing import Any

from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.terminal.words import shell

PROVENANCE = "provenance.json"

FORMAT, VERSION = "fedpareto-provenance", 1

#: Packages whose versions decide, or may decide, the bytes; those that are not installed are left out.
_PACKAGES = (
    *("fedpareto", "torch", "torchvision", "numpy", "scipy", "pymoo", "pillow", "safetensors", "scikit-learn"),
    *("numba", "flwr", "dp-accounting", "cryptography", "onnx", "onnxruntime", "onnxscript"),
)

#: Options whose values may be secret, or name where a secret lies, and the part of an address that may hold one.
_SECRET = re.compile(r"--[\w.-]*(sign|key|secret|token|password|passphrase)\b", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")

_HIDDEN = "HIDDEN"


def origin(command: Sequence[str] | None) -> dict[str, Any]:
    """Return the versions of all packages that matter, the platform, and the command line without secrets.

    Args:
        command: the words of the command line; None from Python, whose own arguments are nobody's business.
    """
    return {
        "command": None if command is None else shell(without_secrets(command)),
        "versions": {"python": platform.python_version(), **_versions()},
        "platform": platform.platform(),
        "machine": machine(),
    }


def without_secrets(command: Sequence[str]) -> list[str]:
    """Return the words of a command line, with HIDDEN in place of keys, secrets and what stands before an @."""
    shown: list[str] = []
    hide = False
    for word in command:
        name, equals, _ = word.partition("=")
        if hide and not word.startswith("--"):
            shown.append(_HIDDEN)
        elif equals and _SECRET.fullmatch(name):
            shown.append(f"{name}={_HIDDEN}")
        else:
            shown.append(_USER.sub(_HIDDEN, word))
        hide = not equals and _SECRET.fullmatch(word) is not None
    return shown


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""Check for optional packages, with a one-line error when they are missing. Does not import torch."""

import importlib
from collections.abc import Sequence

from fedpareto.supernet.common.errors import UserError


def require_extra(extra: str, packages: Sequence[str]) -> None:
    """Refuse to go on without the ``packages`` of an extra.

    Raises:
        UserError: one is missing; it names the line that installs it.
    """
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(f"{name} is not installed; install it with: pip install 'fedpareto[{extra}]'") from error

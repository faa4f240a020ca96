"""Check for options that were given although the command would not read them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fedpareto.supernet.common.errors import UserError


def refuse_unused(options: Any, conditions: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse options that were given, as they are not the default, and that nothing reads.

    Args:
        options: a dataclass of a command's options.
        conditions: for each field that is not always read, true if it is read now, and the option that reads it, as
            words to follow "is read only".

    Raises:
        UserError: there is one; it names it, and what would read it.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(options)}
    for name, (is_read, words) in conditions.items():
        if not is_read and getattr(options, name) != defaults[name]:
            raise UserError(f"--{name.replace('_', '-')} is read only {words}; leave it out, or give that too")

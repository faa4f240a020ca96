"""Keys of a session on a run: what it signs with, and what must have signed what it goes on with."""

from pathlib import Path

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.signatures import Keys, read_keys


def read_session_keys(sign: str | Path | None, verify: str | Path | None, *, begun: bool) -> Keys:
    """Read the keys that a session was given.

    Args:
        sign: file of the private key that checkpoints are signed with; None for none.
        verify: file of the public key that must have signed what is resumed or begun with; None for none.
        begun: whether there is such a run.

    Raises:
        UserError: a key cannot be read, or there is nothing that it could verify.
    """
    if verify is not None and not begun:
        raise UserError(f"verify is {verify}, but nothing is read that could be signed: it goes with resume or init")
    return read_keys(sign, verify)

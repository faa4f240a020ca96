"""First network of a method that trains one network: from a file, or one that every client can run."""

from collections.abc import Sequence

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.supernet.architecture_file import read_architecture
from fedpareto.supernet.common.errors import ArchitectureError, UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.methods.protocol import MethodContext


def read_entry(ground: MethodContext, field: str, path: str) -> CacheEntry:
    """Return the network of the JSON file ``path``, which the ``field`` of the configuration names.

    Raises:
        UserError: it cannot be read, or is not in the space.
    """
    architecture = read_architecture(path)
    try:
        return make_entry(ground.space, architecture)
    except ArchitectureError as error:
        raise ArchitectureError(f"{field} {path}: {error}") from error


def named_entry(ground: MethodContext, field: str, path: str) -> CacheEntry:
    """Return the network of the JSON file ``path``, as ``read_entry`` does, if any client can run it.

    Raises:
        UserError: it cannot be read, is not in the space, or no client can run it.
    """
    entry = read_entry(ground, field, path)
    batch = ground.config.client.batch
    if not any(kind.runs(entry, batch) for kind in set(ground.clients)):
        raise UserError(
            f"no client can run the {format_quantity(entry.macs)} MACs of {field} {path}; raise clients.max_macs or "
            "name a smaller network"
        )
    return entry


def largest_for_all(ground: MethodContext, field: str, entries: Sequence[CacheEntry]) -> CacheEntry:
    """Return the last of ``entries`` that every client can run; the error names the setting ``field`` as a way out.

    Raises:
        UserError: there is no such entry.
    """
    kinds, batch = set(ground.clients), ground.config.client.batch
    everywhere = [entry for entry in entries if all(kind.runs(entry, batch) for kind in kinds)]
    if not everywhere:
        raise UserError(
            f"no entry of the cache can be run by every client; name a network with --{field}, or build a cache with a "
            f"lower {option('flops-min')}"
        )
    return everywhere[-1]

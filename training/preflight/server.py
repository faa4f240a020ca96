"""Preflight of the server of a federation: everything that ``train-supernet --engine flower`` will need there."""

import functools
from collections.abc import Iterator
from pathlib import Path

from fedpareto.cache.cache_file import read_cache_of_any_classes
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.supernet.common.terminal.words import counted
from fedpareto.supernet.slices import supernet_architecture, tensor_shapes
from fedpareto.supernet.space_file import load_space
from fedpareto.training.config.run import RunConfig
from fedpareto.training.engines.flower.admission import read_clients
from fedpareto.training.engines.flower.federation import opened_link
from fedpareto.training.preflight.certificates import authority, pair
from fedpareto.training.preflight.findings import Check, Finding, findings_of, report
from fedpareto.training.preflight.machine_checks import disk, memory, versions
from fedpareto.training.preflight.network import reach, split_address
from fedpareto.training.runs.folder import check_new_run, check_run
from fedpareto.training.setup import run_folder

#: Names of certificates that deploy/make-certificates writes beside that of the authority, each with a key.
_SERVED = ("superlink", "gateway")

#: Words on an authority that is wrong here, where it was made.
_MAKE_AUTHORITY = "correct --flower.root-certificates, or make it with deploy/make-certificates"

_EXTRA = "install the extra: pip install 'fedpareto[flower]'"


def check_server(config: RunConfig, resumed: Path | None) -> int:
    """Print the preflight of a run's server, without starting anything; return the exit code.

    Args:
        config: configuration of the run.
        resumed: folder of the run that is to go on; None for a new one.

    Raises:
        UserError: the run is no federation of real machines.
    """
    if config.engine != "flower":
        raise UserError("check looks at a federation of real machines; give --engine flower, or leave --check out")
    return report("preflight of this server", findings_of(_checks(config, resumed)))


def _checks(config: RunConfig, resumed: Path | None) -> Iterator[Check]:
    yield Check("versions", lambda: list(versions()), f"{_EXTRA} again")
    yield Check("Flower", lambda: _flower(config), "correct the option, or install the extra")
    certificates = config.flower.root_certificates
    if certificates is not None:
        yield Check("authority", lambda: authority(Path(certificates), _MAKE_AUTHORITY), _EXTRA)
        for name in _SERVED:
            yield Check(f"{name}.crt", functools.partial(_served, Path(certificates), name), _EXTRA)
    yield Check("address", lambda: _superlink(config), "give the SuperLink's address: --flower.address HOST:PORT")
    if (listed := config.flower.clients) is not None:
        yield Check(
            "clients", lambda: _clients(Path(listed)), "name the list that deploy/register-node --clients writes"
        )
    yield Check("output", lambda: _output(config, resumed), "choose another --output")
    yield Check("space", lambda: _space(config), "name a preset or a space's YAML file")
    yield Check(
        "disk",
        lambda: disk("disk", run_folder(config), _checkpoint_bytes(config) * (config.checkpoint.keep + 2)),
        "choose another --output",
    )
    yield Check(
        "memory",
        lambda: memory("memory", 4 * _checkpoint_bytes(config), "end other programs, or take a smaller space"),
        "name a space that can be read",
    )


def _flower(config: RunConfig) -> Finding:
    """Check the programs, the options and the temporary folder that a link to a SuperLink needs."""
    with opened_link(config):
        return Finding("Flower", "its command is installed, and the temporary folder takes a socket")


def _served(certificates: Path, name: str) -> list[Finding]:
    """Check a server's certificate and key that lie beside the authority's; a machine need not have both."""
    certificate, key = (certificates.with_name(f"{name}.{kind}") for kind in ("crt", "key"))
    return list(pair(certificate, key, certificates)) if is_file(certificate) else []


def _superlink(config: RunConfig) -> list[Finding]:
    flower = config.flower
    host, _ = split_address(flower.address)
    trusted = None if flower.root_certificates is None else Path(flower.root_certificates)
    found = list(reach(flower.address, trusted, gateway=False))
    if host != "localhost" and not host.startswith("127.") and host != "::1":
        remedy = "let the SuperLink listen on loopback and run train-supernet beside it (deploy/README.md)"
        words = f"{host} is not this machine's loopback: whoever reaches a SuperLink may run code on every node"
        found.append(Finding("exposure", words, "warning", remedy))
    return found


def _clients(path: Path) -> Finding:
    return Finding("clients", f"{counted(len(read_clients(path)), 'client')} in {path}")


def _output(config: RunConfig, resumed: Path | None) -> Finding:
    if resumed is not None:
        check_run(resumed)
        return Finding("output", f"{resumed} holds a whole run")
    check_new_run(run_folder(config))
    return Finding("output", f"{run_folder(config)} is free")


def _space(config: RunConfig) -> Finding:
    space = load_space(config.space)
    if config.cache is not None:
        read_cache_of_any_classes(Path(config.cache), space, "build one with build-cache")
    return Finding("space", f"{space.name}, cache: {config.cache or 'built when the run starts'}")


def _checkpoint_bytes(config: RunConfig) -> int:
    """Return the bytes of a checkpoint: the supernet in fp32, and the server's momentum where there is one."""
    space = load_space(config.space)
    entries = 0
    for shape in tensor_shapes(space, supernet_architecture(space)).values():
        size = 1
        for side in shape:
            size *= side
        entries += size
    return 4 * entries * (2 if config.server.momentum else 1)

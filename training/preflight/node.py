"""Preflight of a client's machine: everything that a SuperNode will need there."""

import dataclasses
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import parse_quantity
from fedpareto.supernet.common.storage.cache_folder import kept_folder
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.preflight.findings import Check, Finding

if TYPE_CHECKING:
    from fedpareto.cache.entries import CacheEntry


@dataclasses.dataclass
class NodeCheckOptions:
    """Options of ``node-check``: those of the site's flower-supernode, and what a run will ask of the machine.

    Attributes:
        superlink: HOST:PORT of the gateway, as flower-supernode is given it.
        root_certificates: PEM file of the authority that signed the gateway's certificate.
        insecure: speak without TLS, to a server on this machine.
        auth_supernode_private_key: private key that the node is known by.
        node_config: the node's settings, such as 'partition-id=3 data-folder="/data/ours"'.
        data: data set that the node has a part of, where node_config names no data-folder.
        space: search space of the runs, a preset's name or a YAML file.
        batch_size: images a step.
        max_macs: most MACs of a network for this client, e.g. 60M; the largest network of the space when left out.
        max_memory: most bytes for a network and its batch, e.g. 500MB.
        epochs: local epochs of a round.
        deadline: seconds that a client has for its answer.
    """

    superlink: str | None = None
    root_certificates: str | None = None
    insecure: bool = False
    auth_supernode_private_key: str | None = None
    node_config: str | None = None
    data: str = "digits"
    space: str = "mobilenet-tiny"
    batch_size: int = 64
    max_macs: str | None = None
    max_memory: str | None = None
    epochs: int = 5
    deadline: float = 600.0


def check_options(options: NodeCheckOptions) -> None:
    """Refuse options that no run could have.

    Raises:
        UserError: naming the option.
    """
    for name, least in (("batch_size", 2), ("epochs", 1), ("deadline", 1)):
        if not getattr(options, name) >= least:
            raise UserError(f"{name} is {getattr(options, name)}; it must be at least {least}")
    for limit in (options.max_macs, options.max_memory):
        if limit is not None:
            parse_quantity(limit)


def node_checks(options: NodeCheckOptions) -> Iterator[Check]:
    """Yield the checks of a client's machine, those first that need nothing."""
    from fedpareto.training.preflight.machine_checks import disk, memory, versions  # noqa: PLC0415

    yield Check("versions", lambda: list(versions()), "install the package again: pip install 'fedpareto[flower]'")
    yield Check("certificates", lambda: _trust(options), "install the extra: pip install 'fedpareto[flower]'")
    yield Check("node's key", lambda: _key(options), "install the extra: pip install 'fedpareto[flower]'")
    yield Check("address", lambda: _server(options), "give the gateway as HOST:PORT, with --superlink")
    site = _Site(options)
    yield Check(
        "node-config", site.read_settings, "give it, e.g. --node-config 'partition-id=3 data-folder=\"/data/ours\"'"
    )
    yield Check("space", site.read_space, "name a preset or a space's YAML file, as the server does")
    yield Check("images", site.images, "put images into FOLDER/CLASS, readable by the user who runs flower-supernode")
    yield Check(
        "disk",
        lambda: disk("disk", kept_folder("images"), site.kept_bytes),
        "set FEDPARETO_CACHE_DIR to a folder that the node's user may write",
    )
    yield Check(
        "memory",
        lambda: memory("memory", site.bytes_to_train(), "end other programs, or ask for smaller networks and batches"),
        "see the lines above",
    )
    yield Check("dry step", site.dry_step, "see the lines above; name another device in --node-config if it is that")


def node_settings(text: str) -> dict[str, Any]:
    """Parse the text of ``--node-config`` as Flower does: key=value pairs, the values as in TOML.

    Raises:
        UserError: it cannot be read.
    """
    pairs = re.findall(r"(\S+?)=('[^']*'|\"[^\"]*\"|\S+)", text)
    try:
        return tomllib.loads("\n".join(f"{name} = {value}" for name, value in pairs))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"node-config {text!r} cannot be read ({error}); texts in it are quoted") from error


def _trust(options: NodeCheckOptions) -> Finding:
    from fedpareto.training.preflight.certificates import authority  # noqa: PLC0415

    if options.root_certificates is None:
        if options.insecure:
            return Finding("authority", "none, as --insecure says")
        remedy = "fetch ca.crt from the server and name it: --root-certificates /etc/fedpareto/ca.crt"
        return Finding("authority", "not given", "failed", remedy)
    return authority(Path(options.root_certificates))


def _key(options: NodeCheckOptions) -> Finding:
    from fedpareto.training.preflight.certificates import node_key  # noqa: PLC0415

    if options.auth_supernode_private_key is None:
        remedy = "make one with deploy/make-node-key and name it: --auth-supernode-private-key FILE"
        return Finding("node's key", "not given; a SuperLink refuses nodes without", "failed", remedy)
    return node_key(Path(options.auth_supernode_private_key))


def _server(options: NodeCheckOptions) -> list[Finding]:
    from fedpareto.training.preflight.network import reach  # noqa: PLC0415

    if options.superlink is None:
        return [Finding("address", "not given", "failed", "name the gateway: --superlink fl.example.org:9443")]
    authority = None if options.root_certificates is None else Path(options.root_certificates)
    if authority is None and not options.insecure:
        return [Finding("address", "not tried without an authority", "failed", "give --root-certificates first")]
    return list(reach(options.superlink, authority, gateway=not options.insecure))


class _Site:
    """Findings of a site's checks that later ones build on: its settings, space and images."""

    def __init__(self, options: NodeCheckOptions) -> None:
        self._options = options
        self._settings: dict[str, Any] | None = None
        self._space: SearchSpace | None = None
        self._count = 0

    def read_settings(self) -> Finding:
        """Read the node's settings."""
        from fedpareto.training.engines.flower.own_images import read_node_config  # noqa: PLC0415 - imports torch

        if self._options.node_config is None:
            raise UserError("not given; flower-supernode needs the client's number at least")
        values = node_settings(self._options.node_config)
        node = read_node_config(values)
        self._settings = values
        where = node.folder or (node.root if "data-root" in values else f"a part of {self._options.data}")
        return Finding("node-config", f"client {node.client}, images: {where}, device {node.device}")

    def read_space(self) -> Finding:
        """Read the search space."""
        self._space = load_space(self._options.space)
        return Finding("space", self._space.name)

    def images(self) -> list[Finding]:
        """Check the images, whose classes the space then has."""
        from fedpareto.training.data.files.preparation import Preparation  # noqa: PLC0415
        from fedpareto.training.engines.flower.own_images import read_node_config  # noqa: PLC0415
        from fedpareto.training.preflight.image_checks import folder_images, partition_images  # noqa: PLC0415

        if self._settings is None:
            return [Finding("images", "not tried without the node's settings", "failed", "mend node-config first")]
        space, node = self._needed_space(), read_node_config(self._settings)
        batch = self._options.batch_size
        if node.folder is None:
            found = partition_images(node, self._options.data, batch)
        else:
            preparation = Preparation(space.resolutions[-1], space.in_channels, "crop")
            found = folder_images(node.folder, preparation, batch)
        self._count = found.number
        self._space = space.adapted(classes=max(found.classes, 2))
        return list(found.findings)

    @property
    def kept_bytes(self) -> int:
        """Bytes of the images as the node keeps them, decoded."""
        if self._space is None:
            return 0
        return self._count * self._space.in_channels * self._space.resolutions[-1] ** 2

    def bytes_to_train(self) -> int:
        """Bytes of memory that the images and a step of the largest network take."""
        from fedpareto.training.clients.capabilities import training_memory  # noqa: PLC0415

        # Weights, their gradients and momentum, and what came from the server.
        entry = self._entry
        return self.kept_bytes + training_memory(entry, self._options.batch_size) + 3 * 4 * entry.params

    def dry_step(self) -> Finding:
        """Time a step."""
        from fedpareto.training.engines.flower.own_images import read_node_config  # noqa: PLC0415
        from fedpareto.training.preflight.dry_step import Round, dry_step  # noqa: PLC0415

        options, node = self._options, read_node_config(self._needed_settings())
        # How many images a part has is settled by a run.
        own = self._count if node.folder is not None and self._count else None
        asked = Round(own, options.epochs, options.deadline)
        return dry_step(self._needed_space(), self._entry, options.batch_size, node.device, asked)

    @functools.cached_property
    def _entry(self) -> "CacheEntry":
        from fedpareto.training.clients.capabilities import Capability  # noqa: PLC0415
        from fedpareto.training.preflight.dry_step import largest_within  # noqa: PLC0415

        options = self._options
        macs, memory = (
            None if text is None else parse_quantity(text) for text in (options.max_macs, options.max_memory)
        )
        entry = largest_within(self._needed_space(), Capability(macs, memory), options.batch_size)
        if entry is None:
            raise UserError(f"no network of {options.space} is within this client's limits; allow more")
        return entry

    def _needed_space(self) -> SearchSpace:
        if self._space is None:
            raise UserError("not possible without the space, which could not be read")
        return self._space

    def _needed_settings(self) -> dict[str, Any]:
        if self._settings is None:
            raise UserError("not possible without the node's settings, which could not be read")
        return self._settings

"""Images of a connected client: its partition of a data set, or a folder of its own; decoded once, then memory-mapped.

Flower starts a new process for every message. So decoded images are kept on the node as a memory-mapped file, in the
folder that ``supernet/common/storage/cache_folder.py`` names.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields, fields_of
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.storage.cache_folder import kept_file
from fedpareto.supernet.common.storage.files import replacing
from fedpareto.supernet.common.storage.path_checks import reaching
from fedpareto.supernet.common.terminal.console import stderr
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.networks.weights import Tensors
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.data.files.folders import all_files
from fedpareto.training.data.files.preparation import Preparation
from fedpareto.training.data.images import ImageSet

#: What a SuperNode's --node-config may hold.
_KEYS = ("partition-id", "data-root", "data-folder", "device")

_PARTS = ("training", "validation")


@dataclasses.dataclass(frozen=True)
class NodeConfig:
    """Settings that a node was started with; the server has no say in them.

    Attributes:
        client: number of the client.
        root: folder of the data set of which the client has a partition.
        folder: folder of CLASS/*.jpg whose images are all the client's own, instead of a partition.
        device: device that the client trains on.
    """

    client: int
    root: str = "data"
    folder: Path | None = None
    device: str = "auto"


@dataclasses.dataclass(frozen=True)
class OwnImages:
    """Training images and held-out images of a client, both with the class names of its own data."""

    training: ImageSet
    validation: ImageSet


def read_node_config(values: Mapping[str, Any]) -> NodeConfig:
    """Return the settings of a SuperNode's ``--node-config``.

    Raises:
        UserError: a key is unknown, or partition-id is missing.
    """
    for key in values:
        if key not in _KEYS:
            raise UserError(f"node-config {key!r} is unknown; it may hold: {', '.join(_KEYS)}")
    client = values.get("partition-id")
    if type(client) is not int or client < 0:
        raise UserError(f"node-config partition-id is {client!r}; it must be the client's number, from 0")
    if "data-root" in values and "data-folder" in values:
        raise UserError("node-config holds data-root and data-folder; a client has a partition or a folder of its own")
    folder = values.get("data-folder")
    root, device = str(values.get("data-root", "data")), str(values.get("device", "auto"))
    return NodeConfig(client, root, None if folder is None else Path(str(folder)), device)


def own_images(node: NodeConfig, config: RunConfig, preparation: Preparation) -> OwnImages:
    """Return the client's images, decoded now or on an earlier call.

    Raises:
        UserError: the images are missing or cannot be read, or the run has no such client.
    """
    if node.client >= config.clients.count:
        last = config.clients.count - 1
        raise UserError(f"node-config partition-id is {node.client}; the run has clients 0 to {last}")
    identity = _identity(node, config, preparation)
    path = kept_file("images", f"client-{node.client}", identity, ".safetensors")
    try:
        return _kept(path)
    except (OSError, SafetensorError, UserError):
        # Not there yet, or damaged.
        _keep(path, _read(node, config, preparation))
    return _kept(path)


def _read(node: NodeConfig, config: RunConfig, preparation: Preparation) -> OwnImages:
    # Decoders and partitioners are slow to import and needed once.
    from fedpareto.training.data.run_images import shares, used_images  # noqa: PLC0415
    from fedpareto.training.data.sources import list_class_folders  # noqa: PLC0415
    from fedpareto.training.data.split import validation_split  # noqa: PLC0415
    from fedpareto.training.randomness import torch_stream  # noqa: PLC0415

    told = ProgressListener(remark=stderr.print)
    if node.folder is not None:
        listing = list_class_folders(node.folder, told)
        stream = torch_stream(config.seed, "validation", node.client)
        training, validation = validation_split(listing, config.data.validation_share, stream)
    else:
        here = dataclasses.replace(config.data, root=node.root, download=False)
        listing = used_images(dataclasses.replace(config, data=here), told)
        given = shares(config, listing)
        training = torch.tensor(given.clients[node.client])
        validation = torch.tensor(given.validation[node.client :: config.clients.count], dtype=torch.int64)
    # What is read here is kept by this module, for all kinds of data.
    parts = (listing.subset(part) for part in (training, validation))
    return OwnImages(*(part.read(preparation, told, keep=False) for part in parts))


def _keep(path: Path, images: OwnImages) -> None:
    tensors: Tensors = {}
    for part in _PARTS:
        data: ImageSet = getattr(images, part)
        tensors |= {f"{part}.images": data.loaded().contiguous(), f"{part}.labels": data.labels.contiguous()}
    metadata = {"classes": json.dumps(images.training.classes), "digest": _digest(tensors, images.training.classes)}
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata)


def _kept(path: Path) -> OwnImages:
    """Return the images kept in a file.

    Raises:
        FileNotFoundError: there is no such file.
        SafetensorError: it is damaged.
        UserError: it is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = fields_of(file.metadata() or {}, str(path))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    texts = parse_json(metadata.text("classes"), str(path))
    classes = Fields({"classes": texts}, str(path)).texts("classes")
    if metadata.text("digest") != _digest(tensors, classes):
        raise UserError(f"{path} is damaged (its digest does not fit)")
    parts = [ImageSet(tensors[f"{part}.images"], tensors[f"{part}.labels"], classes) for part in _PARTS]
    return OwnImages(*parts)


def _digest(tensors: Tensors, classes: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(list(classes)).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _identity(node: NodeConfig, config: RunConfig, preparation: Preparation) -> str:
    """Return a digest of everything that determines the client's images, the files on disk included."""
    settings = config_to_mapping(config)
    chosen = {name: settings[name] for name in ("seed", "partition")}
    data = (config.data.name, config.data.validation, config.data.images, config.client.batch, config.clients.count)
    data = (*data, *dataclasses.astuple(config.data.reading))
    digest = hashlib.sha256(repr((dataclasses.astuple(node), preparation.to_json(), chosen, data)).encode())
    for path in _files(node):
        with reaching(path):
            status = path.stat()
        digest.update(f"{path!a}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _files(node: NodeConfig) -> list[Path]:
    """Return all files that may hold a client's images, links followed."""
    root = Path(node.root) if node.folder is None else node.folder
    # The file of a table, or of a tar, is all that is known of it here.
    return [root] if root.is_file() else sorted(all_files(root))

"""Files of a found subnet: its weights, with everything needed to rebuild the network, and its architecture."""

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fedpareto.supernet.architecture import Architecture, architecture_from_json
from fedpareto.supernet.architecture_file import ARCHITECTURE, save_architecture
from fedpareto.supernet.common.arguments import checked
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_fields import Fields
from fedpareto.supernet.common.formats.json_text import parse_json
from fedpareto.supernet.common.provenance import PROVENANCE
from fedpareto.supernet.common.storage.digests import DIGESTS, check_folder, read_digests
from fedpareto.supernet.common.storage.files import record, replacing, write_text
from fedpareto.supernet.common.storage.path_checks import is_file
from fedpareto.supernet.common.storage.signatures import SigningKey, check_signed, read_keys, sign_folder
from fedpareto.supernet.networks.network import build_network
from fedpareto.supernet.networks.tensor_files import read_tensors
from fedpareto.supernet.networks.weights import network_with
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import space_from_mapping, space_to_mapping
from fedpareto.training.data.files.preparation import PictureError, Preparation
from fedpareto.training.data.images import Normalisation

WEIGHTS = "subnet.safetensors"

#: Kind of folder that a signature says it is for.
KIND = "subnet"

#: Since version 2 a subnet has digests beside it. What was written before says no version.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class SubnetInfo:
    """Metadata of a subnet file.

    Attributes:
        space: the search space it belongs to.
        architecture: its architecture.
        classes: class names in the order of the logits.
        preparation: preparation that turns pictures into pixels.
        normalisation: mean and deviation that pixels must be normalised with.
        report: costs, fitness, accuracies and origin, as printed by ``search-subnet --json``.
    """

    space: SearchSpace
    architecture: Architecture
    classes: tuple[str, ...]
    preparation: Preparation
    normalisation: Normalisation
    report: Mapping[str, Any]


def save_subnet(
    folder: Path,
    network: nn.Module,
    info: SubnetInfo,
    files: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
    key: SigningKey | None = None,
) -> None:
    """Write ``subnet.safetensors`` (weights, calibrated statistics, metadata), ``architecture.json``, and digests.

    Args:
        folder: folder to write to.
        network: the calibrated network.
        info: metadata of the subnet.
        files: names of other files in the folder that belong to the subnet and get a digest too.
        provenance: content of ``provenance.json``; no such file when None.
        key: signs the folder with all its files; None to leave it unsigned.

    Raises:
        UserError: the folder cannot be written.
    """
    metadata = {
        "space": json.dumps(space_to_mapping(info.space)),
        "architecture": str(info.architecture),
        "classes": json.dumps(info.classes),
        "preparation": json.dumps(info.preparation.to_json()),
        "normalisation": json.dumps(dataclasses.asdict(info.normalisation)),
        "report": json.dumps(dict(info.report)),
        "version": json.dumps(VERSION),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise UserError(f"cannot write {folder / WEIGHTS}: {error}") from error
    save_architecture(folder, info.architecture)
    own = [WEIGHTS, ARCHITECTURE, *files]
    if provenance is not None:
        write_text(folder / PROVENANCE, json.dumps(dict(provenance), indent=1) + "\n")
        own.append(PROVENANCE)
    record(folder, own)
    if key is not None:
        sign_folder(folder, KIND, key)


@checked
def load_subnet(folder: str | Path, *, verify: str | Path | None = None) -> nn.Module:
    """Return the network saved in ``folder``, calibrated and in evaluation mode: a plain ``nn.Module``.

    It maps normalised images (N, channels, side, side) to logits (N, classes); ``read_subnet_info`` returns
    the preparation of pictures, the normalisation and the class names.

    Args:
        folder: of the subnet.
        verify: PEM file of the public key that must have signed the folder; a signature that does not fit its files is
            refused without, too.

    Raises:
        UserError: the folder holds no subnet, or its file is damaged, or it is not signed as it must be.

    >>> import torch
    >>> import fedpareto as fp
    >>> federation = {"clients_count": 4, "clients_per_round": 2, "client_epochs": 1}
    >>> run = fp.open_run(fp.train(data="digits", rounds=1, **federation, output="runs/saved", progress=False).folder)
    >>> folder = run.extract(run.find(macs="1M", progress=False), progress=False).save("subnet")
    >>> side = run.find(macs="1M", progress=False).entry.architecture.resolution
    >>> fp.load_subnet(folder)(torch.zeros(1, 3, side, side)).shape
    torch.Size([1, 10])
    """
    info = read_subnet_info(folder, verify=verify)
    wanted = build_network(info.space, info.architecture, running_statistics=True, device="meta").state_dict()
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    types = {name: tensor.dtype for name, tensor in wanted.items()}
    tensors = read_tensors(Path(folder) / WEIGHTS, shapes, "its architecture", types)
    return network_with(info.space, info.architecture, tensors, running_statistics=True).eval()


def read_subnet_info(folder: str | Path, *, verify: str | Path | None = None) -> SubnetInfo:
    """Return the metadata of the subnet saved in ``folder``.

    Args:
        folder: of the subnet.
        verify: PEM file of the public key that must have signed the folder.

    Raises:
        UserError: the folder holds no subnet, or its file is damaged, or it is not signed as it must be.
    """
    path = Path(folder) / WEIGHTS
    if not is_file(path):
        raise UserError(f"{folder} holds no subnet: {path} is missing; write one with search-subnet --run … --output")
    check_signed(path.parent, KIND, read_keys(None, verify).verify)
    # All that was delivered is whole or nothing is: what is not read here may be used elsewhere.
    check_folder(path.parent, complete=False)
    try:
        fields = _metadata(path)
        normalisation = fields.within("normalisation")
        space = space_from_mapping(dict(fields.within("space").values), str(path))
        info = SubnetInfo(
            space=space,
            architecture=architecture_from_json(fields.value("architecture")),
            classes=fields.texts("classes"),
            preparation=_preparation(fields, space),
            normalisation=Normalisation(normalisation.numbers("mean"), normalisation.numbers("std", 0)),
            report=fields.within("report").values,
        )
    except (OSError, SafetensorError, UserError, PictureError) as error:
        raise UserError(f"{path} is damaged or no subnet file: {error}") from error
    if path.name not in read_digests(path.parent):
        if "version" in fields.values:
            raise UserError(f"{path.parent / DIGESTS} is missing or does not name {WEIGHTS}; it belongs to the subnet")
        warnings.warn(f"{path} has no digest: an earlier version wrote it; damage may go unnoticed", stacklevel=2)
    return info


def _metadata(path: Path) -> Fields:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
    return Fields({name: parse_json(text, name) for name, text in metadata.items()}, str(path))


def _preparation(fields: Fields, space: SearchSpace) -> Preparation:
    if "version" not in fields.values and "preparation" not in fields.values:
        # What earlier versions did, and did not say.
        return Preparation(space.resolutions[-1], space.in_channels)
    return Preparation.from_json(fields.value("preparation"))

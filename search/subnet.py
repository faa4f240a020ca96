"""A found subnet as files: weights with everything needed to rebuild the network, and its architecture."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from supernet.architecture import Architecture, architecture_from_json
from supernet.architecture_file import save_architecture
from supernet.errors import UserError
from supernet.files import replacing
from supernet.space import SearchSpace, space_from_mapping, space_to_mapping
from supernet.weights import network_with
from training.data.images import Normalisation
from training.data.preparation import PictureError, Preparation

WEIGHTS = "subnet.safetensors"


@dataclasses.dataclass(frozen=True)
class SubnetInfo:
    """What a subnet file says about itself.

    Attributes:
        space: the search space it belongs to.
        architecture: its architecture.
        classes: class names in the order of the logits.
        preparation: how pictures become pixels.
        normalisation: what pixels must be normalised with.
        report: costs, fitness, accuracies and origin, as printed by ``search-subnet --json``.
    """

    space: SearchSpace
    architecture: Architecture
    classes: tuple[str, ...]
    preparation: Preparation
    normalisation: Normalisation
    report: Mapping[str, Any]


def save_subnet(folder: Path, network: nn.Module, info: SubnetInfo) -> None:
    """Write ``subnet.safetensors`` (weights, calibrated statistics, metadata) and ``architecture.json``.

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
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with replacing(folder / WEIGHTS) as temporary:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:
            raise UserError(f"cannot write {folder / WEIGHTS}: {error}") from error
    save_architecture(folder, info.architecture)


def load_subnet(folder: str | Path) -> nn.Module:
    """Return the network saved in ``folder``, calibrated and in evaluation mode: a plain ``nn.Module``.

    It maps normalised images (N, channels, side, side) to logits (N, classes); ``read_subnet_info`` gives
    how pictures are prepared, the normalisation and the class names.

    Raises:
        UserError: the folder holds no subnet, or its file is damaged.
    """
    info = read_subnet_info(folder)
    tensors = load_file(Path(folder) / WEIGHTS)
    return network_with(info.space, info.architecture, tensors, running_statistics=True).eval()


def read_subnet_info(folder: str | Path) -> SubnetInfo:
    """Return what the subnet saved in ``folder`` says about itself.

    Raises:
        UserError: the folder holds no subnet, or its file is damaged.
    """
    path = Path(folder) / WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} holds no subnet: {path} is missing; write one with search-subnet --run … --output")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
        fields: dict[str, Any] = {name: json.loads(text) for name, text in metadata.items()}
        return SubnetInfo(
            space=space_from_mapping(fields["space"], str(path)),
            architecture=architecture_from_json(fields["architecture"]),
            classes=_strings(fields["classes"]),
            preparation=Preparation.from_json(fields["preparation"]),
            normalisation=Normalisation(*(tuple(fields["normalisation"][name]) for name in ("mean", "std"))),
            report=fields["report"],
        )
    except (OSError, SafetensorError, json.JSONDecodeError, KeyError, PictureError) as error:
        raise UserError(f"{path} is damaged or no subnet file: {error}") from error


def _strings(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(value) for value in values)

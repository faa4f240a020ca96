"""Setup of a run: a configuration becomes a new run's folder, or an old folder a run to resume, then a run's parts."""

import dataclasses
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedpareto.cache.build import compute_cache
from fedpareto.cache.cache_file import Cache, read_cache, read_cache_of_any_classes, remedy_of
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.entries import CACHE_ENTRIES
from fedpareto.fitness.settings import load_settings
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import digest_of
from fedpareto.supernet.common.storage.signatures import NO_KEYS, Keys, SigningKey
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import counted, option
from fedpareto.supernet.networks.weights import Tensors, initial_tensors
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.trainer import recipe_of
from fedpareto.training.config.inputs import (
    COPIES,
    anchored,
    check_paths,
    inputs,
    read_inputs,
    with_equal_inputs,
    with_own_inputs,
)
from fedpareto.training.config.rules.changes import (
    RESUME_MAY_ADAPT,
    RESUME_MAY_EXTEND,
    changed_fields,
    with_former_statistics,
)
from fedpareto.training.config.rules.coincidence import coincides
from fedpareto.training.config.rules.method_defaults import with_method_defaults
from fedpareto.training.config.rules.unused_settings import refuse_unread
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.data.partition.natural import with_own_count
from fedpareto.training.data.partition.picture import federation_picture
from fedpareto.training.data.partition.statistics import FederationStatistics
from fedpareto.training.data.run_images import with_validation
from fedpareto.training.data.sources import source
from fedpareto.training.engines.flower.federation import ConnectedFederation, connect
from fedpareto.training.engines.flower.superlink import Link
from fedpareto.training.engines.protocol import Federation
from fedpareto.training.engines.simulation.federation import (
    SimulatedFederation,
    new_simulation,
    reopen_simulation,
)
from fedpareto.training.engines.simulation.tuning import choose_profile
from fedpareto.training.execution.device import resolve_device
from fedpareto.training.execution.profile import Profile, apply_to_torch, default_profile
from fedpareto.training.methods.protocol import Method
from fedpareto.training.methods.registry import method_of
from fedpareto.training.privacy.accountant import require_accountant
from fedpareto.training.privacy.ledger import Ledger
from fedpareto.training.randomness import torch_stream
from fedpareto.training.rounds.budget import run_ends, weight_words, with_solved_noise
from fedpareto.training.rounds.extension import before_extension, extension_words
from fedpareto.training.rounds.interrupt import UNINTERRUPTED, Interruptible
from fedpareto.training.rounds.run import Run
from fedpareto.training.runs.checkpoint import Checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from fedpareto.training.runs.folder import (
    CACHE,
    FEDERATION_PICTURE,
    FEDERATION_TABLE,
    SPACE,
    SPLIT,
    check_new_run,
    check_run,
    create_run,
    open_ledger,
    read_census,
    read_run_cache,
    read_space,
    read_split,
)
from fedpareto.training.runs.initial import Beginning, beginning
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.progress import extent
from fedpareto.training.runs.provenance import entries_digest, write_session
from fedpareto.training.runs.signing import CheckpointSigner
from fedpareto.training.runs.state import Counts, RunState
from fedpareto.training.trackers.protocol import Tracker


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Prepared run: its folder is complete, and it is ready to train.

    Attributes:
        folder: folder of the run.
        config: complete configuration.
        space: the search space, with the data's classes.
        cache: the curriculum's cache.
        federation: the clients and their images, simulated or connected.
        checkpoint: checkpoint that training starts from.
        profile: execution profile of the local training.
        ledger: ledger of a run with noise that goes on.
    """

    folder: Path
    config: RunConfig
    space: SearchSpace
    cache: Cache
    federation: Federation
    checkpoint: Checkpoint
    profile: Profile
    ledger: Ledger | None = None

    @property
    def method(self) -> Method:
        """Method of the run, made anew."""
        return method_of(self.config, self.space, self.cache, self.federation.labels())

    def ends(self, state: RunState) -> bool:
        """True if nothing is left to do after ``state``."""
        return state.owed is None and run_ends(self.config, self.method, self.ledger, state)


def run_folder(config: RunConfig) -> Path:
    """Return the folder of a run: its output, or runs/SPACE-DATA-seedN."""
    return Path(config.output or f"runs/{Path(config.space).stem}-{config.data.name}-seed{config.seed}")


def new_run(
    config: RunConfig,
    listener: ProgressListener,
    link: Link | None = None,
    keys: Keys = NO_KEYS,
    command: Sequence[str] | None = None,
) -> Prepared:
    """Check everything, then create the folder of a new run; ``listener`` follows what takes long.

    The clients are those behind ``link``, or simulated. The first checkpoint is signed with ``keys``, and what the run
    begins with verified; ``command`` is the command line, for the run's provenance.

    Raises:
        UserError: any mistake that the user can mend; nothing has been written then.
    """
    refuse_unread(config)
    check_paths(config)
    folder = run_folder(config)
    check_new_run(folder)
    _check_statistics(config)
    require_accountant(config.privacy)
    device = resolve_device(config.device)
    space, inputs = load_space(config.space), read_inputs(config)
    begun = None if config.init is None else beginning(config.init, space, keys.verify)
    _check_files(config, space)
    config = with_data_defaults(with_method_defaults(config), space)
    if link is None:
        config = dataclasses.replace(config, data=with_validation(config.data, listener))
    config = anchored(dataclasses.replace(config, output=str(folder), device=str(device)))
    federation = new_simulation(config, space, listener) if link is None else connect(link, config, space, listener)
    if isinstance(federation, SimulatedFederation) and federation.names:
        config = with_own_count(config, len(federation.names))
    space = space.adapted(classes=len(federation.split.classes))
    cache = cache_of(config, space, listener)
    # Refuses clients that are too weak for the cache, before anything is written.
    method = method_of(config, space, cache, federation.labels())
    same = coincides(config)
    if same is not None:
        listener.remark(same)
    if method.weight_by_examples and not config.server.weighs_clients:
        rule = f"server.aggregation {config.server.aggregation} weighs all clients alike"
        listener.remark(f"{rule}; method {config.method} would weigh them by their images")
    config, profile = _with_profile(config, space, cache, federation, device, listener)
    state = RunState(
        round=0,
        counts=Counts.zero(config.clients.count),
        trained=(0,) * len(cache.entries),
        wandb_id=uuid.uuid4().hex[:12],
    )
    config = _with_noise(config, method, space, state, listener)
    drawn = initial_tensors(space, torch_stream(config.seed, "initialisation"))
    if begun is None:
        tensors = method.start(drawn)
    else:
        config, tensors = _begin(config, begun, federation, drawn, listener)
    models = Models(tensors, _zero_velocity(config, tensors))
    config = with_own_inputs(config, folder)
    mapping = config_to_mapping(config)

    def first_checkpoint(into: Path) -> object:
        write_run_session(into, mapping, 0, command)
        return save_checkpoint(into, state, mapping, models, signer_of(keys.sign))

    files = {**inputs, **_federation_files(config, federation, listener)}
    create_run(folder, config, space, cache, federation.split, first_checkpoint, files)
    checkpoint = Checkpoint(state, mapping, models)
    ledger = open_ledger(folder) if config.privacy.noise else None
    return _on_device(Prepared(folder, config, space, cache, federation, checkpoint, profile, ledger), device)


def _federation_files(config: RunConfig, federation: Federation, listener: ProgressListener) -> dict[str, str | bytes]:
    """Return a table and a picture of clients that the data name, by their file names; their numbers are told.

    Whoever withholds statistics of clients' images gets none.
    """
    if not isinstance(federation, SimulatedFederation) or not federation.names or config.privacy.withheld:
        return {}
    if config.clients.data != "independent":
        # The images have changed hands.
        return {}
    classes, labels = federation.split.classes, federation.labels()
    statistics = FederationStatistics(federation.names, classes, labels, config.client.batch)
    listener.remark(statistics.words())
    return {FEDERATION_TABLE: statistics.csv(), FEDERATION_PICTURE: federation_picture(statistics)}


def _with_noise(
    config: RunConfig, method: Method, space: SearchSpace, state: RunState, listener: ProgressListener
) -> RunConfig:
    """Return ``config`` with a number for its noise; the listener is told of what noise and weights cost."""
    config, *words = with_solved_noise(config, method, space, state)
    for one in (*words, weight_words(config)):
        if one is not None:
            listener.remark(one)
    return config


def resumed_run(folder: Path, config: RunConfig, listener: ProgressListener, link: Link | None = None) -> Prepared:
    """Read a run's folder and its newest checkpoint; ``listener`` is told of changes that affect the resulting bytes.

    Raises:
        UserError: the folder holds no run, a file is damaged, the configuration or the images changed.
    """
    check_run(folder)
    space = read_space(folder)
    checkpoint = load_checkpoint(newest_checkpoint(folder), space)
    check_paths(config)
    config = anchored(_completed(dataclasses.replace(config, output=str(folder)), checkpoint.config, space))
    changes = changed_fields(checkpoint.config, config_to_mapping(config))
    config = with_equal_inputs(config, [name for name, _, _ in changes if name in inputs()], folder, space)
    _refuse_changes(folder, config, changed_fields(checkpoint.config, config_to_mapping(config)))
    _check_statistics(config)
    was = before_extension(folder, config, checkpoint.state, checkpoint.config)
    require_accountant(config.privacy)
    ledger, state = _account(folder, config, checkpoint.state)
    checkpoint = dataclasses.replace(checkpoint, state=state)
    device = resolve_device(config.device)
    config = dataclasses.replace(config, device=str(device))
    federation: Federation
    if link is None:
        federation = reopen_simulation(folder, config, space, read_split(folder), listener)
    else:
        federation = connect(link, config, space, listener, read_census(folder))
    cache = read_run_cache(folder, space)
    config, profile = _with_profile(config, space, cache, federation, device, listener)
    for name, old, new in changed_fields(checkpoint.config, config_to_mapping(config)):
        if name == "privacy.epsilon":
            listener.remark(f"the budget is ε {new:g} from here on; {f'it was {old:g}' if old else 'there was none'}")
        elif name not in RESUME_MAY_EXTEND:
            listener.remark(f"{name} is {new} from here on; it was {old}: the run ends with other bytes")
    if was is not None:
        before, now = (method_of(each, space, cache, federation.labels()) for each in (was, config))
        listener.remark(extension_words(before, now, config, was, checkpoint.state))
    return _on_device(Prepared(folder, config, space, cache, federation, checkpoint, profile, ledger), device)


def _account(folder: Path, config: RunConfig, state: RunState) -> tuple[Ledger | None, RunState]:
    """Return the ledger of a run with noise that goes on, and its state with what was released after its checkpoint.

    Raises:
        UserError: the key or the ledger is missing, damaged, or knows less than the checkpoint.
    """
    if not config.privacy.noise or (extent(config, state).finished and state.owed is None):
        return None, state
    ledger = open_ledger(folder)
    ledger.check_against(state.exposure)
    return ledger, dataclasses.replace(state, exposure=ledger.exposure)


def write_run_session(
    folder: Path, config: Mapping[str, Any], round_number: int, command: Sequence[str] | None
) -> None:
    """Note in a run's provenance that a session on it begins, after a number of rounds.

    Raises:
        UserError: the file is damaged, or cannot be written.
    """
    digests = {name: digest_of(folder / file) for name, file in (("data", SPLIT), ("space", SPACE))}
    digests["cache"] = entries_digest(folder / CACHE)
    write_session(folder, digests, config, round_number, command)


def signer_of(key: SigningKey | None) -> CheckpointSigner | None:
    """Return the signer of a run's checkpoints, and with them of its space, cache, split and copies of files."""
    return None if key is None else CheckpointSigner(key, (SPACE, CACHE, SPLIT), (COPIES,))


def assemble(
    prepared: Prepared,
    tracker: Tracker,
    should_stop: Callable[[], bool],
    interruptible: Interruptible = UNINTERRUPTED,
    signer: CheckpointSigner | None = None,
) -> Run:
    """Put the parts of a prepared run together.

    Raises:
        UserError: a client cannot run the smallest network of the cache.
    """
    config, federation = prepared.config, prepared.federation
    connected = config.engine == "flower"
    apply_to_torch(prepared.profile)
    if isinstance(federation, ConnectedFederation):
        federation.roster.keep_in(prepared.folder)
    return Run(
        folder=prepared.folder,
        config=config,
        config_mapping=config_to_mapping(config),
        space=prepared.space,
        entries=prepared.cache.entries,
        method=prepared.method,
        engine=federation.engine(config, prepared.space, prepared.profile, should_stop),
        evaluator=federation.evaluator(config, prepared.space),
        tracker=tracker,
        should_stop=should_stop,
        interruptible=interruptible,
        ledger=prepared.ledger,
        signer=signer,
        # Simulated clients fail alike every time, connected ones do not.
        quorum=config.flower.quorum if connected else 0.0,
        retries=config.flower.retries if connected else 0,
    )


def with_data_defaults(config: RunConfig, space: SearchSpace) -> RunConfig:
    """Return ``config`` with the data set's own augmentation and batch size where none was chosen.

    Raises:
        DataError: there is no such data set.
        UserError: an augmentation is larger than the images, or not made for their channels.
    """
    data, origin, side = config.data, source(config.data.name), space.resolutions[-1]
    own = origin.augmentation(side)
    filled = dataclasses.replace(
        data,
        crop=own.crop if data.crop is None else data.crop,
        flip=own.flip if data.flip is None else data.flip,
        cutout=own.cutout if data.cutout is None else data.cutout,
    )
    for name in ("crop", "cutout"):
        if not 0 <= getattr(filled, name) <= side:
            raise UserError(f"data.{name} is {getattr(filled, name)}; images have {counted(side, 'pixel')} a side")
    if data.randaugment and space.in_channels not in (1, 3):
        raise UserError(
            f"data.randaugment is {data.randaugment}; it changes colours of 1 or 3 channels, and the space has "
            f"in_channels {space.in_channels}: leave it out (crop, flip, cutout, mixup and cutmix take any)"
        )
    batch_size = origin.batch_size if config.client.batch_size is None else config.client.batch_size
    return dataclasses.replace(config, data=filled, client=dataclasses.replace(config.client, batch_size=batch_size))


def _completed(config: RunConfig, trained: Mapping[str, Any], space: SearchSpace) -> RunConfig:
    """Return the configuration to resume with, completed by the settings that a new run gets where it is started."""
    if config.data.validation is None and trained["data"]["validation"] is not None:
        data = dataclasses.replace(config.data, validation=config.data.validation_share)
        config = dataclasses.replace(config, data=data)
    if "kernels" not in trained["execution"]:
        # Runs of before there was a choice.
        config = dataclasses.replace(config, execution=dataclasses.replace(config.execution, kernels="torch"))
    return with_data_defaults(with_method_defaults(with_former_statistics(config, trained)), space)


def _check_statistics(config: RunConfig) -> None:
    """Refuse compute as the length of a run whose rounds must not tell of clients' images."""
    if config.compute is not None and config.privacy.withheld:
        raise UserError(
            f"compute is {config.compute} with privacy.noise; it is counted in clients' images, whose numbers a "
            "private run withholds: give --rounds, or --privacy.statistics exact"
        )


def _with_profile(
    config: RunConfig,
    space: SearchSpace,
    cache: Cache,
    federation: Federation,
    device: torch.device,
    listener: ProgressListener,
) -> tuple[RunConfig, Profile]:
    """Return the configuration with all execution settings filled in for this machine, and the profile they make."""
    if config.engine == "flower":
        # Every client decides by its own machine what the configuration leaves out.
        return config, default_profile(config.precision, config.execution)
    recipe = recipe_of(config, space, federation.split.normalisation)
    choice = choose_profile(config.precision, config.execution, recipe, cache.entries, device, listener)
    listener.remark(str(choice))
    precision, execution = choice.profile.precision, choice.profile.chosen()
    return dataclasses.replace(config, precision=precision, execution=execution), choice.profile


def _refuse_changes(folder: Path, config: RunConfig, changes: Sequence[tuple[str, Any, Any]]) -> None:
    """Refuse changes of settings that a resumed run may not change."""
    for name, old, new in changes:
        if name == "init":
            raise UserError(
                f"init is {new}, but {folder} has begun already, with {old or 'a supernet of its own'}; leave init out "
                f"to go on with it, or start a new run with another {option('output')} and without {option('resume')}"
            )
        if not name.startswith((*RESUME_MAY_ADAPT, *RESUME_MAY_EXTEND)):
            raise UserError(
                f"{name} is {new}, but {folder} was trained with {old}; a resumed run keeps its configuration: drop "
                f"the change, or start a new run with another {option('output')}"
            )
        if name == "privacy.epsilon" and old is not None and (new is None or new < old):
            raise UserError(
                f"{name} is {new}, but {folder} was promised to keep within {old:g}; a resumed run may only be given a "
                "larger budget"
            )
        if name == "client.batch_size" and config.client.batch > old:
            raise UserError(
                f"client.batch_size is {new}, but {folder} was trained with {old} and its clients may hold no more "
                "images; a resumed run may only lower it"
            )


def _begin(
    config: RunConfig, begun: Beginning, federation: Federation, fresh: Tensors, listener: ProgressListener
) -> tuple[RunConfig, Tensors]:
    """Return the configuration with the checkpoint to begin with, and that checkpoint's supernet."""
    tensors, words = begun.tensors(federation.split.classes, fresh)
    listener.remark(words)
    if config.privacy.clip:
        listener.remark(
            "the account of privacy is of this run alone: it says nothing of what that supernet was trained on"
        )
    return dataclasses.replace(config, init=str(begun.checkpoint)), tensors


def _check_files(config: RunConfig, space: SearchSpace) -> None:
    """Refuse files that are missing, damaged or of another space, before images are read, which may take minutes."""
    if config.cache is None:
        load_settings(config.fitness, space)
    else:
        read_cache_of_any_classes(Path(config.cache), space, remedy_of(Path(config.cache), config.space, None))


def cache_of(config: RunConfig, space: SearchSpace, listener: ProgressListener) -> Cache:
    """Return the cache that a new run is given or builds; ``space`` has the classes of its images.

    Raises:
        UserError: a file cannot be read, or is of another space.
    """
    if config.cache is not None:
        path = Path(config.cache)
        return read_cache(path, space, remedy_of(path, config.space, space.classes))
    fitness = load_settings(config.fitness, space)
    return compute_cache(space, fitness, Limits(), CACHE_ENTRIES, listener=listener)


def _zero_velocity(config: RunConfig, tensors: Tensors) -> Tensors | None:
    if not config.server.momentum:
        return None
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def _on_device(prepared: Prepared, device: torch.device) -> Prepared:
    # The supernet has the layout of the clients' networks: slices are copied and added up in long runs.
    layout = prepared.profile.torch_format

    def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: tensor.to(device, memory_format=layout if tensor.ndim == 4 else torch.preserve_format)
            for name, tensor in tensors.items()
        }

    checkpoint = prepared.checkpoint
    return dataclasses.replace(
        prepared,
        federation=prepared.federation.on_device(device),
        checkpoint=dataclasses.replace(checkpoint, models=checkpoint.models.moved(move)),
    )

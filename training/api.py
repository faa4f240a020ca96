"""Training from Python: what ``train-supernet`` does, on data sets by name or on images in memory."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedpareto.cache.cache_file import Cache, write_cache
from fedpareto.supernet.common.arguments import checked, plain
from fedpareto.supernet.common.errors import UserError, nearest_name
from fedpareto.supernet.common.formats.typed_yaml import from_mapping, read_yaml_mapping
from fedpareto.supernet.common.storage.files import write_text
from fedpareto.supernet.common.terminal.console import silence
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import preset_names, space_of, space_to_yaml
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.inputs import absolute, relocated
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.partition import NATURAL
from fedpareto.training.config.registries import check_names
from fedpareto.training.config.rules.unused_settings import refuse_unread, settings_of
from fedpareto.training.config.run import RunConfig, by_full_name, check_unedited
from fedpareto.training.data.functions import COLON, called
from fedpareto.training.data.image_data import ImageData, image_data_of
from fedpareto.training.runs.folder import CONFIG, METRICS, check_holds_run, check_own_output
from fedpareto.training.runs.session_keys import read_session_keys
from fedpareto.training.session import SessionEnd, run_session
from fedpareto.training.setup import run_folder
from fedpareto.training.trackers.callbacks import trackers_of
from fedpareto.training.trackers.metrics_file import read_records
from fedpareto.training.trackers.protocol import Tracker
from fedpareto.training.trackers.records import RoundRecord
from fedpareto.training.training_result import TrainingResult

#: Called with the record of every round, or told of everything.
Callback = Callable[[RoundRecord], object] | Tracker


@checked
def train(
    space: SearchSpace | str | Path | None = None,
    *,
    data: object = None,
    cache: Cache | str | Path | None = None,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    config: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    sign: str | Path | None = None,
    verify: str | Path | None = None,
    **settings: Any,
) -> TrainingResult:
    """Train a supernet federatedly, or go on with a run; Ctrl-C stops at the round's edge.

    Every setting of ``train-supernet`` may be given, with underscores for its dots and dashes: ``--clients.per-round``
    is ``clients_per_round``. A group may be given as a mapping instead: ``clients={"per_round": 5}``.

    Args:
        space: a search space, the name of a preset or a YAML file.
        data: a data set's name such as "digits", "module:function" for a function that returns ``ImageData``, or images
            in memory: ``ImageData``, a pair of images and labels, or a torch ``Dataset``. Images in memory are kept in
            a folder beside the run, so that it can be resumed and searched.
        cache: a Pareto cache, or a file of one; built when left out.
        output: folder of the run; runs/SPACE-DATA-seedN when left out.
        resume: folder of a run to go on with; it keeps its settings, but may be given more ``rounds`` or ``compute``.
        config: YAML file of settings, which those given here override.
        callbacks: functions that are called with the record of every round, or trackers, which are told of everything.
        progress: show progress.
        sign: PEM file of an Ed25519 private key that every checkpoint is signed with.
        verify: PEM file of a public key that the run named by ``resume`` or ``init`` must be signed with.
        settings: all other settings of the command.

    Raises:
        UserError: a setting is unknown or not possible, a file cannot be read, or the output holds a run already.

    >>> import fedpareto as fp
    >>> federation = {"clients_count": 4, "clients_per_round": 2, "client_epochs": 1}
    >>> result = fp.train(data="digits", rounds=2, **federation, output="runs/example", progress=False)
    >>> result.finished, result.rounds
    (True, 2)
    >>> fp.train(resume=result.folder, rounds=3, progress=False).rounds
    3
    """
    told = trackers_of(callbacks)
    with contextlib.ExitStack() as held:
        if not progress:
            held.enter_context(silence())
        if resume is not None:
            if any(given is not None for given in (space, data, cache, config)):
                raise UserError("resume names a run, which keeps its space, data and cache; leave those and config out")
            folder = Path(absolute(resume))
            keys = read_session_keys(sign, verify, begun=True)
            run = _resumed(folder, settings, output)
            return _result(run_session(run, folder, told, ends_process=False, keys=keys))
        values = {} if config is None else by_full_name(read_yaml_mapping(Path(config)))
        values |= _full_names(settings)
        if output is not None:
            # Whoever changes the working folder meanwhile does not change the run's.
            values["output"] = absolute(output)
        values |= held.enter_context(_as_files(space, cache, values))
        images = _set_data(values, data)
        run = _built(values)
        run = dataclasses.replace(run, output=absolute(run_folder(run)))
        refuse_unread(run)
        keys = read_session_keys(sign, verify, begun=run.init is not None)
        return _result(run_session(run, None, told, images=images, ends_process=False, keys=keys))


def _result(end: SessionEnd) -> TrainingResult:
    return TrainingResult(end.folder, end.state.round, end.finished, tuple(read_records(end.folder / METRICS)))


def _full_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their full names, such as ``clients.per_round``.

    Raises:
        UserError: there is no such setting.
    """
    known = {name.replace(".", "_"): name for name in settings_of(config_type()())}
    groups = {name.partition(".")[0] for name in known.values() if "." in name}
    values: dict[str, Any] = {}
    for name, value in settings.items():
        if name in groups:
            if not isinstance(value, Mapping):
                raise UserError(f"{name} is a group of settings; give a mapping, or {name}_… one by one")
            given = by_full_name({name: value})
        elif name in known:
            given = {known[name]: value}
        else:
            raise UserError(_no_such_setting(name, [*known, *groups]))
        twice = sorted(values.keys() & given.keys())
        if twice:
            raise UserError(f"{twice[0]} is given twice, by itself and in its group; give it once")
        values |= given
    return values


def _no_such_setting(name: str, known: Sequence[str]) -> str:
    nearest = nearest_name(name, known)
    meant = f"did you mean {nearest}?" if nearest else "train-supernet --help lists them"
    return f"there is no setting {name}; {meant}"


def _built(values: Mapping[str, Any]) -> RunConfig:
    """Configuration of settings by their full names, through the door that files come through."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        inner = nested
        for group in groups:
            inner = inner.setdefault(group, {})
        # Paths are texts in files, and so are sequences of any kind lists.
        given = list(value) if isinstance(value, tuple) else plain(value)
        inner[last] = str(given) if isinstance(given, Path) else given
    config = from_mapping(config_type(), nested, "train()")
    check_names(config)
    return config


def _resumed(folder: Path, settings: Mapping[str, Any], output: str | Path | None) -> RunConfig:
    """Configuration that a run was trained with, overridden by settings that are given now."""
    check_holds_run(folder)
    check_own_output(output, folder)
    check_unedited(folder / CONFIG)
    before = by_full_name(read_yaml_mapping(folder / CONFIG))
    config = _built({**before, **_full_names(settings)})
    return relocated(config, before.get("output"), folder)


@contextlib.contextmanager
def _as_files(
    space: SearchSpace | str | Path | None, cache: Cache | str | Path | None, values: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Yield the settings that name a space and a cache; what is in memory is in files within the block.

    A run keeps copies of both.
    """
    named: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="fedpareto-") as temporary:
        if isinstance(space, SearchSpace):
            if space.name in preset_names() and space == space_of(space.name):
                named["space"] = space.name
            else:
                named["space"] = str(Path(temporary) / "space.yaml")
                write_text(Path(named["space"]), space_to_yaml(space))
        elif space is not None:
            named["space"] = str(space)
        if isinstance(cache, Cache):
            named["cache"] = str(Path(temporary) / "cache.jsonl")
            searched = space_of(named.get("space", values.get("space", RunConfig().space)))
            _check_same_space(cache, searched)
            write_cache(Path(named["cache"]), cache)
        elif cache is not None:
            named["cache"] = str(cache)
        yield named


def _check_same_space(cache: Cache, space: SearchSpace) -> None:
    """Refuse a cache in memory that was built for another space, or for other classes."""
    if cache.space.choices_digest != space.choices_digest:
        raise UserError(f"the cache is of another space than {space.name}, of {cache.space.name}; build one for it")
    if cache.space.fingerprint != space.fingerprint:
        raise UserError(
            f"the cache is of another space than {space.name}, or of other classes than its {space.classes}; build it "
            "with build_cache(space)"
        )


def _set_data(values: dict[str, Any], data: object) -> ImageData | None:
    """Set the settings of the data; return the images that are in memory, None where they are not."""
    if data is None:
        return None
    if isinstance(data, str):
        values["data.name"] = data
        if COLON in data:
            _set_clients(values, called(data, absolute(values.get("data.root", DataConfig().root))))
        return None
    images = image_data_of(data)
    values["data.name"] = "arrays"
    _set_clients(values, images)
    return images


def _set_clients(values: dict[str, Any], images: ImageData) -> None:
    """Let every image be its own client's, where the data say whose it is and the user has not chosen otherwise."""
    if images.clients is not None:
        values.setdefault("partition.scheme", NATURAL)
        values.setdefault("clients.count", images.client_count)

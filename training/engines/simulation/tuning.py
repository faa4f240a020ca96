"""Choice of a run's execution profile: candidates are timed on this machine, and the choice is kept for later runs."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import parse_json, sealed, unsealed
from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.machine import machine as machine_line
from fedpareto.supernet.common.storage.cache_folder import NowhereKeptError, kept_file
from fedpareto.supernet.common.storage.files import read_text, write_text
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import option
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.config.execution import ExecutionConfig, PrecisionChoice
from fedpareto.training.engines.simulation.bench import WALL_TIME, Bench, Stopwatch, bench_of
from fedpareto.training.engines.simulation.candidates import STAGES, Scope
from fedpareto.training.execution.machine import THIS_MACHINE, Machine
from fedpareto.training.execution.profile import Profile, check_possible, complete_profile, default_profile

#: A setting replaces the default only if it is faster by this factor: less is noise.
_WORTH = 1.03

#: When measuring has taken so many seconds, what is left is measured once.
_SECONDS = 20.0

_VERSION = 2


@dataclasses.dataclass(frozen=True)
class TunedProfile:
    """Profile that was chosen, with the reason in words."""

    profile: Profile
    reason: str

    def __str__(self) -> str:
        return f"clients train {self.profile}: {self.reason}"


def choose_profile(
    precision: PrecisionChoice,
    config: ExecutionConfig,
    recipe: LocalRecipe,
    entries: Sequence[CacheEntry],
    device: torch.device,
    listener: ProgressListener,
    stopwatch: Stopwatch = WALL_TIME,
    machine: Machine = THIS_MACHINE,
) -> TunedProfile:
    """Return the fastest profile within what the user has set, from measurements of this or an earlier run.

    Steps of one representative architecture are timed: the entry nearest to the geometric mean of the smallest and
    the largest MACs, with a batch small enough for a step to be short. These are chosen in turn: precision, memory
    format, numba's kernels, CUDA graphs, the fused optimizer, clients at once. ``stopwatch`` times the steps, and
    ``machine`` says what there is to choose from.

    Raises:
        UserError: the device cannot do what was asked, or not even a small batch fits.
    """
    if config.kernels == "numba":
        _announce_kernels(listener, machine)
    check_possible(device, precision, config, machine)
    threads = machine.threads()
    if config.workers is not None and config.threads is None:
        config = dataclasses.replace(config, threads=max(1, threads // config.workers))
    asked = complete_profile(precision, config)
    if asked is not None:
        return TunedProfile(asked, "as configured")
    scope = Scope(precision, config, device, machine)
    default = default_profile(precision, config, machine)
    if not any(any(stage(default, scope)) for stage in STAGES):
        return TunedProfile(default, "there is nothing to choose from")
    entry = _representative(entries)
    identity = _identity(scope, recipe, entry)
    try:
        path = kept_file("profiles", recipe.space.name, _digest(identity), ".json")
    except NowhereKeptError as error:
        listener.remark(f"{error}; the profile is not kept")
        return _measure(scope, bench_of(recipe, entry, device, threads, stopwatch), listener)
    kept = _read(path, identity)
    if kept is not None and (kept.profile.kernels == "torch" or machine.without_kernels() is None):
        return kept
    choice = _measure(scope, bench_of(recipe, entry, device, threads, stopwatch), listener)
    try:
        body = {**identity, "profile": dataclasses.asdict(choice.profile), "why": choice.reason}
        write_text(path, json.dumps(sealed(body)))
    except UserError as error:
        listener.remark(f"{error}; the profile is not kept")
    return choice


def _measure(scope: Scope, bench: Bench, listener: ProgressListener) -> TunedProfile:
    best = default_profile(scope.precision, scope.config, scope.machine)
    if scope.kernels_fit():
        _remark_on_kernels(listener, scope.machine)
    rates: dict[Profile, float] = {}
    deadline = bench.stopwatch.now() + _SECONDS
    for done, stage in enumerate(STAGES):
        listener.report("measuring how to train", done, len(STAGES))
        others = list(stage(best, scope))
        if not others:
            continue
        measured = bench.rates([best, *others], listener, deadline)
        fastest = max(measured, key=lambda profile: measured[profile])
        best = fastest if measured[fastest] > _WORTH * measured[best] else best
        rates |= measured
    listener.report("measuring how to train", len(STAGES), len(STAGES))
    if not rates.get(best, 1.0):
        raise UserError(
            f"nothing trains on {bench.device}: {best} fails; try another {option('device')} or {option('precision')}"
        )
    return TunedProfile(best, _reason(best, rates, bench))


def _remark_on_kernels(listener: ProgressListener, machine: Machine) -> None:
    _announce_kernels(listener, machine)
    if reason := machine.without_kernels():
        listener.remark(f"clients train without numba's kernels: {reason}")


def _announce_kernels(listener: ProgressListener, machine: Machine) -> None:
    """Tell the user about the compilation of kernels, which takes long, before it begins."""
    if machine.compiles_kernels():
        where = machine.forgets_kernels()
        often = f"at every start: {where}" if where else "once on this machine"
        listener.remark(f"compiling numba's kernels, which takes about 20 seconds, {often}")


def _reason(best: Profile, rates: Mapping[Profile, float], bench: Bench) -> str:
    others = sorted((rate, str(profile)) for profile, rate in rates.items() if profile != best)
    measured = "; ".join(f"{text}: {rate:.0f}" if rate else f"{text}: fails" for rate, text in reversed(others))
    return (
        f"{rates[best]:.0f} images/s of a network of {format_quantity(bench.entry.macs)} MACs, measured at batch "
        f"{bench.recipe.config.batch}{f' ({measured})' if measured else ''}"
    )


def _representative(entries: Sequence[CacheEntry]) -> CacheEntry:
    middle = math.sqrt(entries[0].macs * entries[-1].macs)
    return min(entries, key=lambda entry: abs(math.log(entry.macs / middle)))


def _identity(scope: Scope, recipe: LocalRecipe, entry: CacheEntry) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(scope.device) if scope.device.type == "cuda" else None
    return {
        "version": _VERSION,
        "machine": machine_line(),
        "gpu": gpu,
        "threads": scope.machine.threads(),
        "torch": torch.__version__,
        "numba": _numba_version(),
        "space": recipe.space.fingerprint,
        "macs": entry.macs,
        "batch": recipe.config.batch,
        "asked": {"precision": scope.precision, **dataclasses.asdict(scope.config)},
    }


def _numba_version() -> str | None:
    """Return the version of numba without importing it; None where it is not installed."""
    try:
        return metadata.version("numba")
    except metadata.PackageNotFoundError:
        return None


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path, identity: Mapping[str, Any]) -> TunedProfile | None:
    """Return the choice kept in a file; None if there is none or it is damaged, as measuring again takes seconds."""
    try:
        body = unsealed(parse_json(read_text(path), str(path)), str(path))
        complete = body["profile"].keys() == {field.name for field in dataclasses.fields(Profile)}
        if not complete or {name: body[name] for name in identity} != identity:
            return None
        profile = from_mapping(Profile, body["profile"], str(path))
        return TunedProfile(profile, f"{body['why']}; measured before, kept in {path}")
    except (UserError, AttributeError, ValueError, KeyError, TypeError):
        return None

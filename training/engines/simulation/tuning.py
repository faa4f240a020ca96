"""Choice of a run's execution profile: candidates are timed on this machine, and the choice is kept for later runs."""

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fedpareto.cache.entries import CacheEntry
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.json_text import parse_json, sealed, unsealed
from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.common.machine import machine
from fedpareto.supernet.common.storage.cache_folder import NowhereKeptError, kept_file
from fedpareto.supernet.common.storage.files import read_text, write_text
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.common.terminal.words import option
from fedpareto.supernet.networks.weights import Tensors, initial_tensors, views
from fedpareto.training.clients.cuda_graphs import RecordingError
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.config.execution import ExecutionConfig, PrecisionChoice
from fedpareto.training.data.images import ImageSet
from fedpareto.training.engines.simulation.engine import InProcessEngine
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import (
    Profile,
    check_possible,
    complete_profile,
    default_profile,
    kernels_fit,
    possible_precisions,
)
from fedpareto.training.kernels.available import not_kept, to_be_compiled, unavailable
from fedpareto.training.messages import Task

#: A setting replaces the default only if it is faster by this factor: less is noise.
_WORTH = 1.03

#: A setting this much slower than the best is not measured again: by its first step, which builds kernels, or a later.
_HOPELESS_FIRST, _HOPELESS = 4.0, 1.2

#: A measured step takes about this many seconds, or has the least batch.
_STEP_SECONDS = 0.25
_LEAST_BATCH = 8

#: How often a setting is measured; the fastest counts.
_REPEATS = 3

#: When measuring has taken so many seconds, what is left is measured once.
_SECONDS = 20.0

#: Most clients at once that are tried on a GPU.
_GPU_WORKERS = 8

_VERSION = 2


class Stopwatch:
    """Stopwatch that times the work of an engine."""

    def now(self) -> float:
        """Return the seconds since some fixed moment."""
        return time.monotonic()

    def seconds(self, engine: InProcessEngine, tasks: Sequence[Task]) -> float:
        """Return the time that an engine takes for tasks, in seconds."""
        started = time.perf_counter()
        for _ in engine.run(tasks):
            pass
        return time.perf_counter() - started


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
    stopwatch: "Stopwatch | None" = None,
) -> TunedProfile:
    """Return the fastest profile within what the user has set, from measurements of this or an earlier run.

    Steps of one representative architecture are timed: the entry nearest to the geometric mean of the smallest and
    the largest MACs, with a batch small enough for a step to be short. These are chosen in turn: precision, memory
    format, numba's kernels, CUDA graphs, the fused optimizer, clients at once. ``stopwatch`` times the steps; by
    default in wall time.

    Raises:
        UserError: the device cannot do what was asked, or not even a small batch fits.
    """
    if config.kernels == "numba":
        _announce_kernels(listener)
    check_possible(device, precision, config)
    threads = torch.get_num_threads()
    if config.workers is not None and config.threads is None:
        config = dataclasses.replace(config, threads=max(1, threads // config.workers))
    asked = complete_profile(precision, config)
    if asked is not None:
        return TunedProfile(asked, "as configured")
    default = default_profile(precision, config)
    if not any(any(stage(default, precision, config, device)) for stage in _STAGES):
        return TunedProfile(default, "there is nothing to choose from")
    entry = _representative(entries)
    stopwatch = stopwatch or Stopwatch()
    identity = _identity(precision, config, recipe, entry, device)
    try:
        path = kept_file("profiles", recipe.space.name, _digest(identity), ".json")
    except NowhereKeptError as error:
        listener.remark(f"{error}; the profile is not kept")
        return _measure(precision, config, _sized(recipe, entry, device, stopwatch), listener)
    kept = _read(path, identity)
    if kept is not None and (kept.profile.kernels == "torch" or unavailable() is None):
        return kept
    choice = _measure(precision, config, _sized(recipe, entry, device, stopwatch), listener)
    try:
        body = {**identity, "profile": dataclasses.asdict(choice.profile), "why": choice.reason}
        write_text(path, json.dumps(sealed(body)))
    except UserError as error:
        listener.remark(f"{error}; the profile is not kept")
    return choice


@dataclasses.dataclass(frozen=True)
class _Bench:
    """Bench that times steps of one architecture, on images of noise."""

    recipe: LocalRecipe
    entry: CacheEntry
    device: torch.device
    tensors: Tensors
    stopwatch: Stopwatch

    def rate(self, engine: InProcessEngine, workers: int) -> float:
        """Return images a second of one step on each of ``workers`` clients."""
        sliced = views(self.recipe.space, self.tensors, self.entry.architecture)
        tasks = [Task(1, client, self.entry.architecture, sliced, 1, 0.01, client) for client in range(workers)]
        return workers * self.recipe.config.batch / self.stopwatch.seconds(engine, tasks)

    def engine(self, profile: Profile) -> InProcessEngine:
        """Return an engine whose clients hold one batch each."""
        batch, space = self.recipe.config.batch, self.recipe.space
        shape = (batch, space.in_channels, space.resolutions[-1], space.resolutions[-1])
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, shape, dtype=torch.uint8, generator=generator).to(self.device)
        data = ImageSet(images, torch.arange(batch, device=self.device) % space.classes, ())
        members = [torch.arange(batch, device=self.device)] * profile.workers
        return InProcessEngine(data, members, self.recipe, profile)


def _sized(recipe: LocalRecipe, entry: CacheEntry, device: torch.device, stopwatch: Stopwatch) -> _Bench:
    """Return a bench whose batch makes a step short."""
    drawn = initial_tensors(recipe.space, torch.Generator().manual_seed(0))
    tensors = {name: tensor.to(device) for name, tensor in drawn.items()}

    def bench(batch: int) -> _Bench:
        config = dataclasses.replace(recipe.config, batch_size=batch, epochs=1)
        return _Bench(dataclasses.replace(recipe, config=config), entry, device, tensors, stopwatch)

    least = bench(min(_LEAST_BATCH, recipe.config.batch))
    try:
        engine = least.engine(Profile(threads=torch.get_num_threads()))
        rate = max(least.rate(engine, 1) for _ in range(2))
    except OutOfMemoryError as error:
        raise UserError(
            f"out of memory on {device}: even a batch of {error.batch_size} of the network of "
            f"{format_quantity(entry.macs)} MACs does not fit; use a smaller space, or another {option('device')}"
        ) from error
    return bench(max(least.recipe.config.batch, min(recipe.config.batch, int(rate * _STEP_SECONDS))))


def _measure(
    precision: PrecisionChoice, config: ExecutionConfig, bench: _Bench, listener: ProgressListener
) -> TunedProfile:
    best = default_profile(precision, config)
    if kernels_fit(precision, config, bench.device):
        _remark_on_kernels(listener)
    rates: dict[Profile, float] = {}
    deadline = bench.stopwatch.now() + _SECONDS
    for done, stage in enumerate(_STAGES):
        listener.report("measuring how to train", done, len(_STAGES))
        others = list(stage(best, precision, config, bench.device))
        if not others:
            continue
        measured = _rates([best, *others], bench, listener, deadline)
        fastest = max(measured, key=lambda profile: measured[profile])
        best = fastest if measured[fastest] > _WORTH * measured[best] else best
        rates |= measured
    listener.report("measuring how to train", len(_STAGES), len(_STAGES))
    if not rates.get(best, 1.0):
        raise UserError(
            f"nothing trains on {bench.device}: {best} fails; try another {option('device')} or {option('precision')}"
        )
    return TunedProfile(best, _reason(best, rates, bench))


def _remark_on_kernels(listener: ProgressListener) -> None:
    _announce_kernels(listener)
    if reason := unavailable():
        listener.remark(f"clients train without numba's kernels: {reason}")


def _announce_kernels(listener: ProgressListener) -> None:
    """Tell the user about the compilation of kernels, which takes long, before it begins."""
    if to_be_compiled():
        where = not_kept()
        often = f"at every start: {where}" if where else "once on this machine"
        listener.remark(f"compiling numba's kernels, which takes about 20 seconds, {often}")


def _rates(
    candidates: Sequence[Profile], bench: _Bench, listener: ProgressListener, deadline: float
) -> dict[Profile, float]:
    """Return the images a second of every profile, measured in turns; 0 for a profile that fails."""
    engines: dict[Profile, InProcessEngine] = {}
    rates = dict.fromkeys(candidates, 0.0)
    for repeat in range(_REPEATS + 1):
        if repeat > 1 and bench.stopwatch.now() > deadline:
            break
        for profile in candidates:
            slack = _HOPELESS_FIRST if repeat == 1 else _HOPELESS
            if repeat and (profile not in engines or rates[profile] * slack < max(rates.values())):
                continue
            try:
                engine = engines[profile] if repeat else bench.engine(profile)
                rate = bench.rate(engine, profile.workers)
            except (OutOfMemoryError, RecordingError, RuntimeError) as error:
                # What a device lacks shows as a RuntimeError of some kernel.
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                listener.remark(f"{profile}: not possible here ({reason})")
                engines.pop(profile, None)
                rates[profile] = 0.0
                continue
            engines[profile] = engine
            rates[profile] = max(rate, rates[profile])
    return rates


def _precisions(
    best: Profile, precision: PrecisionChoice, config: ExecutionConfig, device: torch.device
) -> Iterator[Profile]:
    del config
    possible = possible_precisions(device)
    for name in possible if precision == "auto" and best.kernels == "torch" else ():
        # fp16 needs its gradients scaled, which no graph can: only where there is no bf16.
        unwanted = name == "fp16" and ("bf16" in possible or best.graphs)
        if name != best.precision and not unwanted:
            yield dataclasses.replace(best, precision=name)


def _formats(
    best: Profile, precision: PrecisionChoice, config: ExecutionConfig, device: torch.device
) -> Iterator[Profile]:
    del precision, device
    if config.memory_format is None and best.kernels == "torch":
        yield dataclasses.replace(best, memory_format="contiguous")


def _kernels(
    best: Profile, precision: PrecisionChoice, config: ExecutionConfig, device: torch.device
) -> Iterator[Profile]:
    if kernels_fit(precision, config, device) and unavailable() is None:
        yield dataclasses.replace(best, precision="fp32", memory_format="channels_last", kernels="numba")


def _graphs(
    best: Profile, precision: PrecisionChoice, config: ExecutionConfig, device: torch.device
) -> Iterator[Profile]:
    del precision
    if config.graphs is None and device.type == "cuda" and best.precision != "fp16" and not best.compiled:
        yield dataclasses.replace(best, graphs=True)


def _optimizers(
    best: Profile, precision: PrecisionChoice, config: ExecutionConfig, device: torch.device
) -> Iterator[Profile]:
    del precision, device
    # Only the fused optimizer reads its learning rate on the device, as a graph must.
    if config.fused is None and not best.graphs:
        yield dataclasses.replace(best, fused=False)


def _workers(
    best: Profile, precision: PrecisionChoice, config: ExecutionConfig, device: torch.device
) -> Iterator[Profile]:
    del precision
    threads = torch.get_num_threads()
    most = _GPU_WORKERS if device.type == "cuda" else threads
    if config.workers is None:
        for workers in (2**power for power in range(1, int(math.log2(most)) + 1)):
            yield dataclasses.replace(best, workers=workers, threads=config.threads or max(1, threads // workers))


#: What is decided one after the other.
_STAGES = (_precisions, _formats, _kernels, _graphs, _optimizers, _workers)


def _reason(best: Profile, rates: Mapping[Profile, float], bench: _Bench) -> str:
    others = sorted((rate, str(profile)) for profile, rate in rates.items() if profile != best)
    measured = "; ".join(f"{text}: {rate:.0f}" if rate else f"{text}: fails" for rate, text in reversed(others))
    return (
        f"{rates[best]:.0f} images/s of a network of {format_quantity(bench.entry.macs)} MACs, measured at batch "
        f"{bench.recipe.config.batch}{f' ({measured})' if measured else ''}"
    )


def _representative(entries: Sequence[CacheEntry]) -> CacheEntry:
    middle = math.sqrt(entries[0].macs * entries[-1].macs)
    return min(entries, key=lambda entry: abs(math.log(entry.macs / middle)))


def _identity(
    precision: PrecisionChoice, config: ExecutionConfig, recipe: LocalRecipe, entry: CacheEntry, device: torch.device
) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "version": _VERSION,
        "machine": machine(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numba": _numba_version(),
        "space": recipe.space.fingerprint,
        "macs": entry.macs,
        "batch": recipe.config.batch,
        "asked": {"precision": precision, **dataclasses.asdict(config)},
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

"""Rates of local training on one device, the most telling first, until their share of the time is used up."""

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import torch
from gpu_report import Peak, Rate
from local_training import Ours, Pass, Plain, on_device
from roofline import matmul_peak, share_of_peak
from time_share import Cut, Until, cut_after

from fedpareto.cache.entries import CacheEntry, make_entry
from fedpareto.cache.exact.frontier import exact_frontier
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.typed_yaml import from_mapping
from fedpareto.supernet.networks.weights import Tensors, initial_tensors
from fedpareto.supernet.slices import supernet_architecture
from fedpareto.supernet.space import SearchSpace
from fedpareto.supernet.space_file import load_space
from fedpareto.training.clients.cuda_graphs import Recorder
from fedpareto.training.clients.trainer import LocalRecipe
from fedpareto.training.config.client import ClientConfig
from fedpareto.training.config.execution import Precision
from fedpareto.training.data.augment import Augmentation
from fedpareto.training.data.images import Normalisation
from fedpareto.training.execution.machine import THIS_MACHINE
from fedpareto.training.execution.out_of_memory import OutOfMemoryError
from fedpareto.training.execution.profile import Profile, apply_to_torch

#: The preset of the smallest networks, and that of large images, whose largest network alone is measured.
SMALLEST, LARGE_IMAGES = "mobilenet-tiny", "mobilenet-imagenet"
SIZES = ("largest", "middle", "smallest")

#: Steps of a client in a round: those of one of 20 clients of CIFAR-10 at batch 64; of large images a few.
STEPS, STEPS_OF_LARGE_IMAGES = 36, 4

#: Of its part's time a row has this share at most, and of a row's time its passes: what is before them builds networks.
SHARE_OF_A_ROW, SHARE_OF_PASSES = 1 / 25, 1 / 8

#: Passes of a row, at least and at most.
LEAST_PASSES, MOST_PASSES = 2, 20

#: Clients at once that are tried beside one.
CLIENTS = (8, 4, 2)

NORMALISATION = Normalisation((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))

Way = Literal["plain loop", "plain loop on tensors", "ours"]


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to be measured: which of its space's it is."""

    space: SearchSpace
    size: str
    entry: CacheEntry


@dataclasses.dataclass(frozen=True)
class Manner:
    """How a network is trained: in which way, with which profile, and with which of cuDNN's kernels."""

    way: Way
    profile: Profile
    kernels: Literal["deterministic", "fastest"] = "deterministic"


#: The manners that every network is compared with; torch's own defaults.
PLAIN = tuple(
    Manner(way, Profile(memory_format="contiguous", fused=False), "fastest")
    for way in ("plain loop", "plain loop on tensors")
)


@dataclasses.dataclass(frozen=True)
class Bench:
    """What all rows share.

    Attributes:
        device: that trains.
        batch: images a step.
        recorder: makes what stands in for CUDA graphs; none on a GPU.
        peaks: FLOP/s by precision.
    """

    device: torch.device
    batch: int
    recorder: Callable[[], Recorder] | None
    peaks: Mapping[str, float]


def peaks_of(device: torch.device) -> tuple[Peak, ...]:
    """Return what the device can do at best in every precision it has."""
    found = []
    for precision in _precisions(device):
        profile = Profile(precision=precision)
        apply_to_torch(profile)
        found.append(Peak(precision, matmul_peak(profile, device)))
    return tuple(found)


def plan(spaces: Sequence[str], device: torch.device) -> Iterator[tuple[Network, Manner]]:
    """Yield what is to be measured, the most telling first; a space is solved when its turn comes.

    First every network in the plain loop and in the best precision with graphs, then several clients at once, then one
    setting after the other changed; large images and variants of the smallest space come last.
    """
    best = _best(device)
    networks: list[Network] = []
    for name in (name for name in spaces if name != LARGE_IMAGES):
        for network in networks_of(load_space(name)):
            networks.append(network)
            yield from ((network, manner) for manner in (*PLAIN, Manner("ours", best)))
    yield from _variations([network for network in networks if network.space.name != SMALLEST], best, device)
    if LARGE_IMAGES in spaces:
        largest = largest_of(load_space(LARGE_IMAGES))
        yield from ((largest, manner) for manner in (*PLAIN, Manner("ours", best)))
    yield from _variations([network for network in networks if network.space.name == SMALLEST], best, device)


def _variations(networks: Sequence[Network], best: Profile, device: torch.device) -> Iterator[tuple[Network, Manner]]:
    for network in networks:
        for clients in CLIENTS:
            yield network, Manner("ours", replace(best, workers=clients))
    for manner in variants(best, device):
        yield from ((network, manner) for network in networks)


def variants(best: Profile, device: torch.device) -> Iterator[Manner]:
    """Yield manners that differ from the best by graphs, kernels, precision or memory format."""
    yield Manner("ours", replace(best, graphs=False))
    yield Manner("ours", best, "fastest")
    for precision in _precisions(device)[1:]:
        for graphs in (True, False):
            yield Manner("ours", replace(best, precision=precision, graphs=graphs))
    yield Manner("ours", replace(best, memory_format="contiguous"))


def networks_of(space: SearchSpace) -> Iterator[Network]:
    """Yield the largest, the middle and the smallest network of a space's frontier."""
    frontier = exact_frontier(space, space.fitness.for_cache())
    count = len(frontier.macs)
    for size, index in zip(SIZES, (count - 1, count // 2, 0), strict=True):
        yield Network(space, size, frontier.entry(index))


def largest_of(space: SearchSpace) -> Network:
    """Return the largest network of a space, which need not be on its frontier."""
    return Network(space, "largest", make_entry(space, supernet_architecture(space)))


def measured(plans: Iterator[tuple[Network, Manner]], bench: Bench, until: Until) -> Iterator[Rate]:
    """Yield a row for everything that was planned, as it is measured, for as long as there is time."""
    tensors: dict[str, Tensors] = {}
    plain: dict[tuple[str, str], dict[str, float]] = {}
    most = until.left * SHARE_OF_A_ROW
    for network, manner in plans:
        if until.left <= 0:
            return
        name = network.space.name
        if name not in tensors:
            tensors = {name: initial_tensors(network.space, torch.Generator().manual_seed(0))}
        rate = _row(network, manner, bench, tensors[name], min(most, until.left))
        reached = plain.setdefault((name, network.size), {})
        if manner.way != "ours" and rate.images_per_second is not None:
            reached[manner.way] = rate.images_per_second
        yield _compared(rate, reached)


def _compared(rate: Rate, plain: Mapping[str, float]) -> Rate:
    if rate.images_per_second is None or rate.way != "ours":
        return rate
    by_way = {way: rate.images_per_second / slow for way, slow in plain.items()}
    return replace(rate, ratio=by_way.get("plain loop"), ratio_on_tensors=by_way.get("plain loop on tensors"))


def _row(network: Network, manner: Manner, bench: Bench, tensors: Tensors, seconds: float) -> Rate:
    """Return one row: its fastest pass, or what went wrong."""
    profile = manner.profile
    blank = Rate(
        network.space.name, network.size, network.entry.macs, manner.way, profile.precision, profile.memory_format,
        profile.graphs, profile.workers, manner.kernels,
    )  # fmt: skip
    # Whatever ends a row, its passes so far are kept.
    passes: list[Rate] = []
    try:
        with cut_after(seconds):
            own = seconds * SHARE_OF_PASSES
            _measure(network, manner, bench, tensors, own, lambda **found: passes.append(replace(blank, **found)))
    except Cut:
        problem = f"cut after {seconds:.0f} s"
    except OutOfMemoryError as error:
        problem = str(error)
    except (RuntimeError, MemoryError, UserError) as error:
        # What a device or its driver lacks shows as a RuntimeError; the next row may do without it.
        problem = f"fails: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    else:
        problem = ""
    finally:
        if bench.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
    return max(passes, key=_speed) if passes else replace(blank, problem=problem)


def _measure(
    network: Network, manner: Manner, bench: Bench, tensors: Tensors, seconds: float, found: Callable[..., None]
) -> None:
    """Train a network in passes of about ``seconds`` together; tell ``found`` the fields of each one's row."""
    config = ClientConfig(epochs=1, batch_size=bench.batch)
    recipe = LocalRecipe(network.space, config, Augmentation(crop=4, flip=True), NORMALISATION)
    most = STEPS_OF_LARGE_IMAGES if network.space.name == LARGE_IMAGES else STEPS
    set_kernels(manner)
    if manner.way != "ours":
        loop = Plain(network.entry, recipe, bench.device)
        rate = loop.rate if manner.way == "plain loop" else loop.prepared_rate
        _passes(
            lambda steps: Pass(rate(steps)), bench.batch, most, seconds, lambda one: found(images_per_second=one.rate)
        )
        return
    # Merging changes them; those of the CPU are the next row's too.
    own = {name: tensor.clone() for name, tensor in on_device(tensors, bench.device, manner.profile).items()}
    ours = Ours(network.entry, recipe, manner.profile, own, most, bench.recorder if manner.profile.graphs else None)
    peak = bench.peaks[manner.profile.precision]

    def tell(one: Pass) -> None:
        share = share_of_peak(one.rate, network.entry.macs, peak)
        found(images_per_second=one.rate, peak_share=share, outside_sgd=one.outside, memory=one.peak)

    _passes(ours.run, bench.batch * manner.profile.workers, most, seconds, tell)


def _passes(run: Callable[[int], Pass], images: int, most: int, seconds: float, tell: Callable[[Pass], None]) -> None:
    """Run passes of up to ``most`` steps, each of so many ``images``, and tell of them.

    The first pass builds networks, chooses kernels and records; the second, of one step, says how long a step takes.
    It is told of for where there is no other: what surrounds the step weighs most in it.
    """
    run(1)
    tried = run(1)
    tell(tried)
    steps = max(1, min(most, int(tried.rate / images * seconds / LEAST_PASSES)))
    end = Until(time.monotonic() + seconds)
    for number in range(MOST_PASSES):
        if number >= LEAST_PASSES and end.left <= 0:
            break
        tell(run(steps))


def _speed(rate: Rate) -> float:
    return rate.images_per_second or 0.0


def set_kernels(manner: Manner) -> None:
    """Set what torch keeps for the whole process, as a manner wants it; the plain loops have torch's own defaults."""
    apply_to_torch(manner.profile)
    torch.backends.cudnn.deterministic = manner.kernels == "deterministic"
    torch.backends.cudnn.benchmark = manner.way == "ours" and manner.kernels == "fastest"
    if manner.way != "ours":
        # As torch is installed: convolutions of fp32 run in tf32.
        torch.backends.cudnn.allow_tf32 = True


def _precisions(device: torch.device) -> list[Precision]:
    """Return what a row is measured in, the best first."""
    possible = THIS_MACHINE.precisions(device)
    return [name for name in ("bf16", "tf32", "fp32") if name in possible]


def _best(device: torch.device) -> Profile:
    return Profile(precision=_precisions(device)[0], graphs=True, threads=torch.get_num_threads())


def fastest(rates: Sequence[Rate], space: str) -> Rate | None:
    """Return the row of the profile that trained a space's middle network fastest, None if there is none."""
    wanted = (space, "middle", "ours", "deterministic")
    able = [rate for rate in rates if (rate.space, rate.size, rate.way, rate.kernels) == wanted and _speed(rate)]
    return max(able, key=_speed, default=None)


def profile_of(rate: Rate) -> Profile:
    """Return the profile of a row that was measured in this process."""
    values = {"precision": rate.precision, "memory_format": rate.memory_format, "graphs": rate.graphs}
    return from_mapping(Profile, {**values, "workers": rate.clients, "threads": torch.get_num_threads()}, "a row")

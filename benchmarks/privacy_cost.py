"""What privacy costs: ε after 100 rounds with MaxNet's and with equal weights, and the time of account and noise."""

import time

from results import Results
from rich.console import Console

from fedpareto.supernet.networks.weights import initial_tensors
from fedpareto.supernet.space_file import load_space
from fedpareto.training.aggregation.weighted_average import maxnet_weights
from fedpareto.training.config.server import LARGEST_WEIGHT
from fedpareto.training.methods.sampling import draw_clients
from fedpareto.training.methods.schedules import largest_weight
from fedpareto.training.privacy.accountant import epsilon, exposure_after
from fedpareto.training.privacy.mechanism import Noise, sums_digests
from fedpareto.training.randomness import numpy_stream, torch_stream

ROUNDS, NOISE, DELTA = 100, 1.0, 1e-5


def main() -> None:
    """Measure and print."""
    table = Results("fedpareto", "dp-accounting", "torch")
    for clients, drawn in ((20, 8), (1000, 50)):
        maxnet, equal = (
            epsilon(max(exposure(clients, drawn, start)), NOISE, DELTA) for start in (LARGEST_WEIGHT, 1 / drawn)
        )
        table.add(
            f"ε after {ROUNDS} rounds, noise {NOISE:g}, δ = {DELTA:g}, {drawn} of {clients} clients a round",
            f"{maxnet:.1f} with MaxNet's weights, {equal:.1f} with equal ones",
            "-",
        )
    table.add("account of one round", f"{1e3 * timed_account():.1f} ms", "-")
    add_noise(table)
    Console(width=140).print(table)


def exposure(clients: int, drawn: int, start: float) -> tuple[float, ...]:
    """Return every client's exposure; who has had the largest network least often has it next."""
    spent: tuple[float, ...] = ()
    largest = [0] * clients
    for number in range(ROUNDS):
        chosen = draw_clients(range(clients), drawn, numpy_stream(0, "clients", number))
        first = min(chosen, key=largest.__getitem__)
        largest[first] += 1
        weights = maxnet_weights([client == first for client in chosen], largest_weight(number, ROUNDS, drawn, start))
        spent = exposure_after(spent, dict(zip(chosen, weights, strict=True)), clients)
    return spent


def timed_account(repeats: int = 20) -> float:
    """Return the seconds of one ε; the first one imports the accountant and is not counted."""
    epsilon(1.0, NOISE, DELTA)
    started = time.perf_counter()
    for repeat in range(repeats):
        epsilon(1.0 + repeat, NOISE, DELTA)
    return (time.perf_counter() - started) / repeats


def add_noise(table: Results) -> None:
    """Measure the noise on a round's sums for a supernet."""
    tensors = initial_tensors(load_space("mobilenet-cifar"), torch_stream(0, "initialisation"))
    key = bytes(32)
    started = time.perf_counter()
    noise = Noise(key, "a run", 1, 1.0, sums_digests(key, tensors.items()))
    for name, tensor in tensors.items():
        noise(name, tensor)
    millions = sum(tensor.numel() for tensor in tensors.values()) / 1e6
    table.add(f"noise on {millions:.0f} M values", f"{time.perf_counter() - started:.1f} s", "-")


if __name__ == "__main__":
    main()

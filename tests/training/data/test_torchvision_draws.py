import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread

import pytest
import torch
from helpers.processes import PATIENCE

from fedpareto.training.data.torchvision_draws import drawing_from

_THREADS = 8
_DRAWS = 50


def _generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draw(generator: torch.Generator) -> tuple[float, float]:
    """Return two draws inside one block, between which other threads have a chance to run."""
    with drawing_from(generator):
        first = torch.rand(()).item()
        time.sleep(0)
        return first, torch.rand(()).item()


def _draws(seed: int) -> list[tuple[float, float]]:
    generator = _generator(seed)
    return [_draw(generator) for _ in range(_DRAWS)]


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Let threads take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_draws_inside_are_those_of_a_seed_drawn_from_the_generator() -> None:
    seed = int(torch.randint(2**62, (), generator=_generator()))
    expected = torch.rand(4, generator=torch.Generator().manual_seed(seed))
    with drawing_from(_generator()):
        assert torch.equal(torch.rand(4), expected)


def test_blocks_of_one_generator_differ_and_repeat_with_its_seed() -> None:
    assert len(set(_draws(1))) == _DRAWS
    assert _draws(1) == _draws(1)
    assert not set(_draws(1)) & set(_draws(2))


def test_a_block_advances_its_generator_by_one_draw_whatever_is_drawn_inside() -> None:
    expected = _generator()
    torch.randint(2**62, (), generator=expected)
    for count in (0, 1, 1000):
        generator = _generator()
        with drawing_from(generator):
            torch.rand(count)
        assert torch.equal(generator.get_state(), expected.get_state())


def test_the_global_generator_is_as_it_was_after_a_block() -> None:
    before = torch.get_rng_state()
    _draw(_generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_generator_is_as_it_was_after_an_exception_and_the_next_block_is_served() -> None:
    before = torch.get_rng_state()

    def fail() -> None:
        with drawing_from(_generator()):
            torch.rand(3)
            raise ValueError("of the user's transform")

    with pytest.raises(ValueError, match="of the user's transform"):
        fail()
    assert torch.equal(torch.get_rng_state(), before)
    # A lock that was kept would stop this thread for ever.
    thread = Thread(target=_draws, args=(3,), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.usefixtures("eager_switches")
def test_threads_that_draw_at_once_get_what_each_gets_alone() -> None:
    expected = [_draws(seed) for seed in range(_THREADS)]
    before, together = torch.get_rng_state(), Barrier(_THREADS)

    def draws(seed: int) -> list[tuple[float, float]]:
        together.wait()
        return _draws(seed)

    with ThreadPoolExecutor(_THREADS) as pool:
        assert list(pool.map(draws, range(_THREADS))) == expected
    assert torch.equal(torch.get_rng_state(), before)

import pytest
from strategies import tiny_space

from cache.build import build_cache
from cache.limits import Limits
from cache.nsga2 import Nsga2Settings, solve_nsga2
from supernet.errors import BudgetError

QUICK = Nsga2Settings(population=20, generations=3, seed=5)


def test_a_cache_holds_the_solvers_entries_and_how_they_were_found() -> None:
    space, limits = tiny_space(), Limits(macs=2_000_000)
    cache = build_cache(space, space.fitness, limits, 6, QUICK)
    assert list(cache.entries) == solve_nsga2(space, space.fitness, limits, 6, QUICK)
    assert cache.fitness == space.fitness
    assert cache.solver == "nsga2"
    assert cache.solver_settings == {
        "population": 20,
        "generations": 3,
        "seed": 5,
        "limits": {"macs": 2_000_000, "params": None, "min_macs": None},
        "entries": 6,
    }


@pytest.mark.parametrize("entries", [1, 0, -4])
def test_a_cache_of_less_than_two_entries_is_refused(entries: int) -> None:
    with pytest.raises(BudgetError, match=rf"{entries} entries is too small; ask for at least 2"):
        build_cache(tiny_space(), tiny_space().fitness, Limits(), entries, QUICK)

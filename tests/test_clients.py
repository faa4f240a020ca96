import numpy as np
import pytest

from supernet.errors import UserError
from training.clients import Capability, ClientsConfig, capabilities, draw_clients


def _config(**fields: object) -> ClientsConfig:
    return ClientsConfig(**{"count": 5, "per_round": 3, **fields})  # type: ignore[arg-type]


def test_without_limits_a_client_runs_anything() -> None:
    assert capabilities(_config()) == [Capability()] * 5
    assert Capability().runs(10**15, 10**15)
    assert str(Capability()) == "anything"


def test_limits_repeat_over_the_clients_each_list_by_itself() -> None:
    found = capabilities(_config(max_macs=("1k", "2M"), max_memory=("1M", "2M", "3M")))
    assert [client.macs for client in found] == [1_000, 2_000_000, 1_000, 2_000_000, 1_000]
    assert [client.memory for client in found] == [1_000_000, 2_000_000, 3_000_000, 1_000_000, 2_000_000]


@pytest.mark.parametrize(
    ("macs", "memory", "runs"), [(10, 100, True), (11, 100, False), (10, 101, False), (0, 0, True)]
)
def test_a_client_runs_a_network_up_to_and_including_its_limits(macs: int, memory: int, runs: bool) -> None:
    assert Capability(macs=10, memory=100).runs(macs, memory) is runs


def test_a_limit_on_one_cost_leaves_the_other_free() -> None:
    assert Capability(macs=10).runs(10, 10**12)
    assert Capability(memory=10).runs(10**12, 10)


def test_a_capability_prints_its_limits() -> None:
    assert str(Capability(macs=60_000_000)) == "60M MACs"
    assert "MACs and " in str(Capability(macs=60_000_000, memory=64_000_000))


def test_a_round_draws_distinct_clients_in_random_order() -> None:
    generator = np.random.default_rng(0)
    rounds = [draw_clients(range(5), 3, generator) for _ in range(300)]
    assert all(len(drawn) == len(set(drawn)) == 3 and set(drawn) <= set(range(5)) for drawn in rounds)
    assert any(drawn != sorted(drawn) for drawn in rounds)
    counts = np.bincount(np.concatenate(rounds), minlength=5)
    assert counts.min() > 140
    assert counts.max() < 220
    assert all(type(client) is int for drawn in rounds for client in drawn)


def test_the_draw_is_the_generators() -> None:
    first, again, other = (draw_clients(range(50), 3, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_all_clients_may_train_every_round() -> None:
    assert sorted(draw_clients(range(5), 5, np.random.default_rng(0))) == list(range(5))


def test_clients_that_are_away_are_not_drawn_and_fewer_may_be_there_than_are_wanted() -> None:
    assert set(draw_clients([1, 4, 7, 9], 3, np.random.default_rng(0))) <= {1, 4, 7, 9}
    assert sorted(draw_clients([4, 7], 3, np.random.default_rng(0))) == [4, 7]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 0}, r"clients\.count is 0 and clients\.per_round 3; both must be at least 1"),
        ({"per_round": 0}, r"clients\.per_round 0; both must be at least 1"),
        ({"per_round": 6}, r"clients\.per_round is 6, more than the 5 clients of clients\.count"),
        ({"max_macs": ("10M", "many")}, "many"),
        ({"max_memory": ("64 apples",)}, "64 apples"),
    ],
)
def test_a_federation_that_cannot_be_is_an_error_that_names_the_option(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _config(**fields)
    assert "\n" not in str(caught.value)

import numpy as np
import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.clients import ClientsConfig, draw_clients


def _config(**fields: object) -> ClientsConfig:
    return ClientsConfig(**{"count": 5, "per_round": 3, **fields})  # type: ignore[arg-type]


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
        ({"max_latency": ("5 parsecs",)}, "5 parsecs"),
        ({"macs_cap": "much"}, "much"),
        ({"max_latency": ("5ms",)}, r"clients\.max_latency is given without clients\.latency_table"),
        ({"latency_table": "t.json"}, r"clients\.latency_table is given without clients\.max_latency"),
        ({"file": "c.jsonl", "max_macs": ("1M",)}, r"clients\.file is c\.jsonl, which holds all limits"),
        ({"macs_distribution": "tiers"}, r"tiers draws from clients\.max_macs; list some"),
        ({"macs_distribution": "zipf", "max_macs": ("1M",)}, r"max_macs is \['1M'\]; zipf draws between two values"),
        ({"macs_distribution": "uniform", "max_macs": ("2M", "1M")}, "uniform draws between two values"),
        ({"data": "pooled"}, r"clients\.per_round is 3 and clients\.data pooled, .*; set clients\.per_round to 1"),
    ],
)
def test_a_federation_that_cannot_be_is_an_error_that_names_the_option(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        _config(**fields)
    assert "\n" not in str(caught.value)

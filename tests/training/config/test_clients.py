import pytest

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.config.clients import ClientsConfig


def _config(**fields: object) -> ClientsConfig:
    return ClientsConfig(**{"count": 5, "per_round": 3, **fields})  # type: ignore[arg-type]


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

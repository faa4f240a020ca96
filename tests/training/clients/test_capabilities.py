import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.networks.latency import random_times, write_table
from helpers.runs.federation import MICRO
from helpers.runs.simulation import micro_entries

from fedpareto.cache.costs.latency.cost import read_latency
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.genes import encode
from fedpareto.training.clients.capabilities import Capability, capabilities, training_memory
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.data.partition.by_strength import matched, shares_of_images

_BATCH = 8


def _config(**fields: object) -> ClientsConfig:
    return ClientsConfig(**{"count": 5, "per_round": 3, **fields})  # type: ignore[arg-type]


def _macs(**fields: object) -> list[int]:
    """Return the limits on MACs of many clients."""
    found = capabilities(ClientsConfig(**{"count": 2000, "per_round": 3, **fields}), MICRO, 7)  # type: ignore[arg-type]
    limits = [client.macs for client in found]
    assert None not in limits
    return [macs for macs in limits if macs is not None]


def test_without_limits_a_client_runs_anything() -> None:
    assert capabilities(_config(), MICRO, 0) == [Capability()] * 5
    assert Capability().runs(dataclasses.replace(micro_entries()[0], macs=10**15, params=10**15), _BATCH)
    assert str(Capability()) == "anything"


def test_limits_repeat_over_the_clients_each_list_by_itself() -> None:
    found = capabilities(_config(max_macs=("1k", "2M"), max_memory=("1M", "2M", "3M")), MICRO, 0)
    assert [client.macs for client in found] == [1_000, 2_000_000, 1_000, 2_000_000, 1_000]
    assert [client.memory for client in found] == [1_000_000, 2_000_000, 3_000_000, 1_000_000, 2_000_000]


@pytest.mark.parametrize(("macs", "memory", "runs"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_a_client_runs_a_network_up_to_and_including_its_limits(macs: int, memory: int, runs: bool) -> None:
    entry = micro_entries()[1]
    needed = 4 * entry.params + _BATCH * entry.activation_bytes
    assert training_memory(entry, _BATCH) == needed
    assert Capability(macs=entry.macs - macs, memory=needed - memory).runs(entry, _BATCH) is runs


def test_a_limit_on_one_cost_leaves_the_other_free() -> None:
    entry = dataclasses.replace(micro_entries()[0], macs=10, params=10**12)
    assert Capability(macs=10).runs(entry, _BATCH)
    entry = dataclasses.replace(entry, macs=10**12, params=1, activation_bytes=0)
    assert Capability(memory=4).runs(entry, _BATCH)


def test_a_limit_on_latency_is_by_the_table(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.json", random_times(MICRO))
    cost = read_latency(table, MICRO)
    times = [float(cost.of(MICRO, encode(MICRO, entry.architecture)[None])[0]) for entry in micro_entries()]
    limit = float(np.median(times))
    (client,) = set(capabilities(_config(max_latency=(f"{limit}ms",), latency_table=str(table)), MICRO, 0))
    assert [client.runs(entry, _BATCH) for entry in micro_entries()] == [time <= limit for time in times]
    assert str(client) == f"{limit:g} ms"


def test_a_capability_prints_its_limits() -> None:
    assert str(Capability(macs=60_000_000)) == "60M MACs"
    assert "MACs and " in str(Capability(macs=60_000_000, memory=64_000_000))


def test_tiers_are_drawn_in_equal_shares_and_not_in_turn() -> None:
    macs = _macs(max_macs=("1M", "2M", "4M"), macs_distribution="tiers")
    counts = [macs.count(tier) for tier in (1_000_000, 2_000_000, 4_000_000)]
    assert sum(counts) == 2000
    assert min(counts) > 580
    assert macs[:6] != [1_000_000, 2_000_000, 4_000_000] * 2


def test_uniform_limits_fill_the_range_evenly() -> None:
    macs = np.array(_macs(max_macs=("10M", "30M"), macs_distribution="uniform"))
    assert macs.min() >= 10_000_000
    assert macs.max() <= 30_000_000
    assert np.quantile(macs, [0.25, 0.5, 0.75]) == pytest.approx([15e6, 20e6, 25e6], rel=0.05)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.2, 2.0])
def test_zipf_limits_have_the_density_of_the_power(exponent: float) -> None:
    macs = np.array(_macs(max_macs=("25M", "1.5G"), macs_distribution="zipf", macs_exponent=exponent))
    assert macs.min() >= 25_000_000
    assert macs.max() <= 1_500_000_000
    grid = np.linspace(25e6, 1.5e9, 200_001)
    mass = np.cumsum(grid**-exponent)
    for quantile in (0.2, 0.5, 0.8):
        expected = grid[np.searchsorted(mass, quantile * mass[-1])]
        assert (macs <= expected).mean() == pytest.approx(quantile, abs=0.04)


def test_a_cap_cuts_what_is_drawn_and_is_a_limit_by_itself() -> None:
    free = _macs(max_macs=("25M", "1.5G"), macs_distribution="zipf")
    assert _macs(max_macs=("25M", "1.5G"), macs_distribution="zipf", macs_cap="600M") == [
        min(macs, 600_000_000) for macs in free
    ]
    assert set(_macs(macs_cap="600M")) == {600_000_000}


def test_the_draw_is_the_runs() -> None:
    config = _config(max_macs=("1M", "9M"), macs_distribution="uniform")
    assert capabilities(config, MICRO, 1) == capabilities(config, MICRO, 1) != capabilities(config, MICRO, 2)


def _file(folder: Path, *lines: object) -> str:
    path = folder / "clients.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return str(path)


def test_a_file_holds_the_limits_of_every_client(tmp_path: Path) -> None:
    table = write_table(tmp_path / "t.json", random_times(MICRO))
    file = _file(tmp_path, {"macs": "1M"}, {}, {"macs": 5, "memory": "2M"}, {"latency": "2ms"}, {"memory": 7})
    found = capabilities(_config(file=file, latency_table=str(table)), MICRO, 0)
    assert [client.macs for client in found] == [1_000_000, None, 5, None, None]
    assert [client.memory for client in found] == [None, None, 2_000_000, None, 7]
    assert [client.latency and client.latency.milliseconds for client in found] == [None, None, None, 2.0, None]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["{}"] * 4, r"describes 4 clients and clients\.count is 5"),
        (["{}"] * 4 + ["{"], r"clients\.jsonl:5 is not valid JSON"),
        (["{}"] * 4 + ["[]"], r"clients\.jsonl:5 must be an object of macs, memory, latency"),
        ([{"speed": 1}] + ["{}"] * 4, r"clients\.jsonl:1 must be an object of macs, memory, latency"),
        ([{"macs": "fast"}] + ["{}"] * 4, "fast"),
        ([{"latency": "5ms"}] + ["{}"] * 4, r"clients\.jsonl:1 has a latency; say by which --clients\.latency-table"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, lines: list[object], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        capabilities(_config(file=_file(tmp_path, *lines)), MICRO, 0)
    assert "\n" not in str(caught.value)


def test_matched_data_give_more_images_to_clients_that_run_more() -> None:
    clients = (30, 10, None, 20)
    parts = [[1], [2, 3, 4], [5, 6], [7, 8, 9, 10]]
    assert matched(parts, clients) == [[2, 3, 4], [1], [7, 8, 9, 10], [5, 6]]


def test_zipf_by_ranks_draws_evenly_spaced_levels_the_lower_the_oftener() -> None:
    low, high, exponent = 25_000_000, 1_500_000_000, 1.2
    macs = _macs(max_macs=("25M", "1.5G"), macs_distribution="zipf-ranks", macs_exponent=exponent)
    step = (high - low) / (len(macs) - 1)
    probabilities = [rank**-exponent for rank in range(1, len(macs) + 1)]
    for rank in (1, 2, 3):
        expected = probabilities[rank - 1] / sum(probabilities)
        # The lowest level has no room below it: what would fall there is at the lowest limit.
        here = [low + (rank - 1.5) * step < limit <= low + (rank - 0.5) * step for limit in macs]
        error = (expected * (1 - expected) / len(macs)) ** 0.5
        assert sum(here) / len(macs) == pytest.approx(expected, abs=4 * error)
    assert low in macs
    assert min(macs) == low
    assert max(macs) <= high


def test_levels_of_zipf_by_ranks_are_written_out_for_few_clients() -> None:
    from fedpareto.training.clients.capabilities import _zipf_ranks

    # Three levels of 100, 200 and 300 MACs with probabilities 6/11, 3/11 and 2/11.
    drawn, beside = np.array([0.0, 6 / 11 - 1e-9, 6 / 11 + 1e-9]), np.array([0.5, 0.75, 0.25])
    assert _zipf_ranks(drawn, beside, 100, 300, 1.0) == [100, 125, 175]
    last = np.array([9 / 11 - 1e-9, 9 / 11 + 1e-9, 0.999])
    assert _zipf_ranks(last, np.array([0.5, 0.0, 0.9]), 100, 300, 1.0) == [200, 250, 300]
    assert _zipf_ranks(np.array([0.7]), np.array([0.2]), 100, 300, 1.0) == [100]


def test_budgets_by_ranks_are_cut_at_the_cap() -> None:
    macs = _macs(max_macs=("25M", "1.5G"), macs_distribution="zipf-ranks", macs_cap="600M")
    assert max(macs) == 600_000_000


def test_images_go_by_a_power_of_the_macs() -> None:
    clients = (100, 200, 400)
    assert shares_of_images(clients, 1.0).tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7])
    assert shares_of_images(clients, 2.0).tolist() == pytest.approx([1 / 21, 4 / 21, 16 / 21])
    assert shares_of_images(clients, 0.0).tolist() == pytest.approx([1 / 3] * 3)


def test_images_cannot_go_by_macs_that_are_not_limited() -> None:
    with pytest.raises(UserError, match="not all have a limit"):
        shares_of_images([100, None], 1.0)

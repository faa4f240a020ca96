import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from latency import names_of, random_times, write_table
from spaces import SMALL, SMALL_RESNET, listed
from strategies import PRESETS, preset

from fitness.blocks import tabulate
from search.latency.names import block_names
from search.latency.table import LatencyTableError, read_latency
from supernet.errors import UserError
from supernet.genes import random_genes
from supernet.layers import LayerTable, layer_table
from supernet.layouts import IntArray
from supernet.space import SearchSpace

SPACES = (SMALL, SMALL_RESNET, *map(preset, PRESETS))
_COLUMNS = ("c_in", "c_out", "kernel", "groups", "h_in", "h_out")


def _layers(table: LayerTable, n: int, rows: list[int]) -> str:
    """Return everything a device runs of some rows of network ``n``."""
    found = []
    for row in rows:
        if table.active[row, n]:
            layer = table.layers[row]
            sizes = [int(getattr(table, column)[row, n]) for column in _COLUMNS]
            found.append((layer.kind, layer.stride, layer.activation, layer.norm, layer.bias, *sizes))
    return repr(found)


def _all_layers(table: LayerTable) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    return np.array([_layers(table, n, list(range(len(table.layers)))) for n in range(table.active.shape[1])])


def _named(space: SearchSpace) -> list[tuple[str, str]]:
    """Return (name, layers) of every choice of every part."""
    names, layers = block_names(space), tabulate(space, [_all_layers])
    pairs = [(names.stem, layers.stem), (names.head, layers.head)]
    pairs += zip(itertools.chain(*names.blocks), itertools.chain(*layers.blocks), strict=True)
    return [(str(name), str(made)) for part, (column,) in pairs for name, made in zip(part, column, strict=True)]


def _time_of_network(space: SearchSpace, genes: IntArray, times: dict[str, float]) -> float:
    """Return the sum over a network's blocks, each looked up by its layers."""
    table = layer_table(space, genes)
    of_layers = {layers: times[name] for name, layers in _named(space)}
    groups: dict[str, list[int]] = {}
    for row, layer in enumerate(table.layers):
        stage = int(table.stage[row])
        inside = 0 < stage <= len(space.stages)
        groups.setdefault(layer.block if inside else f"part {stage}", []).append(row)
    parts = [_layers(table, 0, rows) for rows in groups.values()]
    return sum(of_layers[layers] for layers in parts if layers != "[]")


@pytest.mark.parametrize("space", SPACES, ids=lambda space: space.name)
def test_blocks_have_the_same_name_exactly_where_they_have_the_same_layers(space: SearchSpace) -> None:
    pairs = set(_named(space))
    assert all(name for name, _ in pairs)
    assert len({name for name, _ in pairs}) == len({layers for _, layers in pairs}) == len(pairs)


@pytest.mark.parametrize("space", [SMALL, SMALL_RESNET, preset("mobilenet-tiny")], ids=lambda space: space.name)
def test_the_latency_of_a_network_is_the_sum_over_its_blocks(tmp_path: Path, space: SearchSpace) -> None:
    times = random_times(space)
    cost = read_latency(write_table(tmp_path / "table.json", times), space, 5.0)
    genes = random_genes(space, 12, np.random.default_rng(3))
    expected = [_time_of_network(space, vector, times) for vector in genes]
    assert cost.of(space, genes).tolist() == pytest.approx(expected, rel=1e-12)
    assert len(set(expected)) == 12
    assert (cost.name, cost.unit, cost.limit) == ("latency", "ms", 5.0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_block_of_a_preset_needs_its_time(tmp_path: Path, name: str) -> None:
    space, times = preset(name), random_times(preset(name))
    whole = read_latency(write_table(tmp_path / "table.json", times), space)
    assert whole.limit == math.inf
    assert (whole.of(space, random_genes(space, 50, np.random.default_rng(0))) > 0).all()
    for lacking in np.random.default_rng(1).choice(list(times), 5, replace=False):
        path = write_table(tmp_path / "lacking.json", {block: times[block] for block in times if block != lacking})
        with pytest.raises(LatencyTableError) as caught:
            read_latency(path, space)
        assert f"lacks 1 of the {len(times):,} blocks of {name}, such as {str(lacking)!r}" in str(caught.value)


def test_a_table_serves_every_space_that_has_its_blocks(tmp_path: Path) -> None:
    space = SMALL.adapted(classes=7)
    times = random_times(SMALL) | random_times(space, seed=1) | {"a block of another space": 4.0}
    cost = read_latency(write_table(tmp_path / "table.json", times), space)
    genes = listed(space).genes[::97]
    expected = [_time_of_network(space, vector, times) for vector in genes[:5]]
    assert cost.of(space, genes[:5]).tolist() == pytest.approx(expected, rel=1e-12)


def test_times_may_be_zero_and_whole(tmp_path: Path) -> None:
    path = write_table(tmp_path / "table.json", dict.fromkeys(names_of(SMALL), 0))
    assert (read_latency(path, SMALL).of(SMALL, listed(SMALL).genes[:10]) == 0).all()


@pytest.mark.parametrize("time", [-1, -1e-12, float("nan"), float("inf"), "5", None, True, [1.0]], ids=str)
def test_a_time_that_is_no_number_of_at_least_zero_is_named(tmp_path: Path, time: object) -> None:
    times = random_times(SMALL)
    bad = sorted(times)[17]
    path = write_table(tmp_path / "table.json", times | {bad: time})
    with pytest.raises(LatencyTableError) as caught:
        read_latency(path, SMALL)
    expected = f"{path}: the time of {bad!r} is {time!r}; it must be a number of at least 0"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[]", 'is not a latency table: it lacks "format": "fedpareto-latency-table"'),
        ("{}", "is not a latency table"),
        (json.dumps({"format": "fedpareto-cache", "version": 1, "blocks": {}}), "is not a latency table"),
        (json.dumps({"format": "fedpareto-latency-table", "blocks": {}}), "has version None; this program reads 1"),
        (json.dumps({"format": "fedpareto-latency-table", "version": 2}), "has version 2; this program reads 1"),
        (json.dumps({"format": "fedpareto-latency-table", "version": 1}), "blocks must be an object of names"),
        (
            json.dumps({"format": "fedpareto-latency-table", "version": 1, "blocks": [1]}),
            "blocks must be an object of names and milliseconds, found [1]",
        ),
    ],
)
def test_a_file_that_is_no_table_says_why(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(LatencyTableError) as caught:
        read_latency(path, SMALL)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_table_lacks_every_block(tmp_path: Path) -> None:
    count = len(names_of(SMALL))
    with pytest.raises(LatencyTableError, match=f"lacks {count} of the {count} blocks of small"):
        read_latency(write_table(tmp_path / "table.json", {}), SMALL)


def test_a_table_that_cannot_be_read_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_latency(tmp_path / "nowhere.json", SMALL)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        read_latency(tmp_path / "binary.json", SMALL)

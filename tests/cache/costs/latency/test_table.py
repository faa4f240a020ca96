import dataclasses
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from helpers.networks.latency import conditions, names_of, random_times, write_table
from helpers.networks.spaces import SMALL, SMALL_RESNET, listed
from helpers.networks.strategies import PRESETS, preset

from fedpareto.cache.costs.latency.block_names import block_names
from fedpareto.cache.costs.latency.cost import latency_cost, read_latency
from fedpareto.cache.costs.latency.table import (
    Correction,
    LatencyTable,
    LatencyTableError,
    Validation,
    check_conditions,
    read_table,
    write_latency_table,
)
from fedpareto.fitness.part_tables import tabulate
from fedpareto.supernet.arrays import IntArray
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.genes import random_genes
from fedpareto.supernet.layer_table import LayerTable, layer_table
from fedpareto.supernet.space import SearchSpace

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


@pytest.mark.parametrize("time", [-1, -1e-12, "5", None, True, [1.0]], ids=str)
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
        (json.dumps({"format": "fedpareto-latency-table", "version": 1}), "lacks the field blocks"),
        (
            json.dumps({"format": "fedpareto-latency-table", "version": 1, "blocks": [1]}),
            "blocks is [1]; it must be an object",
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


def test_a_table_is_written_and_read_back_whole(tmp_path: Path) -> None:
    table = LatencyTable(
        {"a": 1.5, "b": 0.0},
        conditions(versions={"onnxruntime": "1.2", "torch": "2.9"}),
        {"a": (1.4, 1.6, 100), "b": (0.0, 0.1, 20)},
        (3.0, 3.5),
        Correction(1.25, -0.125),
        Validation(2, 1.0, 0.5, 2.0, 1.0, (1.0, 2.0), (1.5, 2.5)),
    )
    write_latency_table(tmp_path / "table.json", table)
    assert read_table(tmp_path / "table.json") == table
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["measured"] == dataclasses.asdict(conditions(versions={"onnxruntime": "1.2", "torch": "2.9"}))
    assert set(content) - {"format", "version", "blocks", "digest"} == {
        *("measured", "spread", "references", "correction", "validation"),
    }


@pytest.mark.parametrize(("factor", "offset"), [(1.25, 0.375), (0.5, 0.0), (2.0, -0.05)])
def test_a_correction_is_of_sums_and_leaves_them_sums(tmp_path: Path, factor: float, offset: float) -> None:
    times = random_times(SMALL)
    plain = latency_cost(LatencyTable(times), SMALL)
    write_latency_table(tmp_path / "t.json", LatencyTable(times, correction=Correction(factor, offset)))
    corrected = read_latency(tmp_path / "t.json", SMALL, 7.0)
    genes = random_genes(SMALL, 200, np.random.default_rng(0))
    assert corrected.of(SMALL, genes) == pytest.approx(factor * plain.of(SMALL, genes) + offset, rel=1e-12)
    assert corrected.limit == 7.0


@pytest.mark.parametrize(
    ("factor", "offset", "words"),
    [
        (1.0, -5.0, "correction makes a stem's time -"),
        (0.0, 0.0, "correction needs a factor above 0 and a finite offset"),
        (-1.0, 0.0, "correction needs a factor above 0"),
        (float("nan"), 0.0, "NaN"),
        (1.0, float("inf"), "Infinity"),
    ],
)
def test_a_correction_that_makes_no_sense_is_refused(tmp_path: Path, factor: float, offset: float, words: str) -> None:
    path = tmp_path / "t.json"
    write_latency_table(path, LatencyTable(random_times(SMALL), correction=Correction(factor, offset)))
    with pytest.raises(LatencyTableError, match=words) as caught:
        read_latency(path, SMALL)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("measured", 5),
        ("measured", {"space": "small"}),
        ("spread", {"a": 1}),
        ("spread", [1]),
        ("spread", {"a": [1.0, 2.0, 2.5]}),
        ("references", "fast"),
        ("references", [1.0, None]),
        ("correction", {"factor": 1.0}),
        ("validation", []),
    ],
)
def test_a_table_with_a_malformed_field_names_it(tmp_path: Path, field: str, value: object) -> None:
    path = write_table(tmp_path / "t.json", random_times(SMALL))
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(LatencyTableError, match=f"{path}(:| lacks the field) {field}") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)


def test_a_figure_that_was_changed_is_noticed_and_one_written_by_hand_is_not(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_latency_table(path, LatencyTable(random_times(SMALL), conditions()))
    content = json.loads(path.read_text())
    name = sorted(content["blocks"])[3]
    content["blocks"][name] += 0.125
    path.write_text(json.dumps(content))
    with pytest.raises(LatencyTableError, match=r"is damaged \(its digest does not fit\)"):
        read_table(path)
    del content["digest"]
    path.write_text(json.dumps(content))
    assert read_table(path).blocks == content["blocks"]


def test_a_table_of_another_space_says_so(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_latency_table(path, LatencyTable(random_times(SMALL), conditions(space="small")))
    with pytest.raises(LatencyTableError) as caught:
        read_latency(path, SMALL_RESNET)
    assert str(caught.value).startswith(f"space: {path} was measured for small, not small-resnet; it lacks ")
    assert str(caught.value).endswith("measure them on the device with profile-device")


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("runtime", "onnxruntime", "torch"),
        ("machine", "mine", "a machine"),
        ("device", "a GPU", "cpu"),
        ("threads", 4, "1"),
        ("batch", 8, "1"),
        ("versions", {"torch": "3", "onnxruntime": "2"}, "torch 2.9"),
    ],
)
def test_a_table_of_other_conditions_names_the_field_that_differs(
    tmp_path: Path, field: str, value: object, found: str
) -> None:
    table, path = LatencyTable({}, conditions()), tmp_path / "t.json"
    same = {name: getattr(conditions(), name) for name in ("machine", "device", "runtime", "threads", "batch")}
    check_conditions(table, path, **same)
    with pytest.raises(LatencyTableError) as caught:
        check_conditions(table, path, **{**same, field: value})
    wanted = "torch 3, onnxruntime 2" if field == "versions" else value
    assert str(caught.value).startswith(
        f"{field}: {path} was measured with {found}, but {wanted} is wanted here; use another table, or measure one"
    )


def test_a_table_written_by_hand_fits_any_conditions(tmp_path: Path) -> None:
    check_conditions(LatencyTable({}), tmp_path / "t.json", runtime="onnxruntime", threads=9)


def test_only_norms_that_stay_on_a_device_are_in_names() -> None:
    grouped = dataclasses.replace(SMALL, norm="group")
    batch, group = names_of(SMALL), names_of(grouped)
    assert not any(" gn " in name for name in batch)
    assert all(" gn " in name for name in group)
    assert sorted(name.replace(" gn ", " ") for name in group) == batch

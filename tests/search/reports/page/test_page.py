import copy
import dataclasses
import html
import json
import math
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.browser import opened_browser, visited
from helpers.networks.strategies import tiny_space
from helpers.wild import ESCAPES, SYNTAX
from playwright.sync_api import Browser

from fedpareto.cache.costs.cost import AdditiveCost, count_cost
from fedpareto.cache.costs.limits import Limits
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.plot import Fronts
from fedpareto.search.query.report import search_report
from fedpareto.search.query.searcher import search, search_cheapest
from fedpareto.search.reports.page.layers import layer_lines
from fedpareto.search.reports.page.page import Page, render_page, write_page
from fedpareto.search.reports.terminal import standing
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import printable

_SPACE = tiny_space()
_FRONTIER = load_or_compute_frontier(_SPACE, _SPACE.fitness)
_TIMES = count_cost(_SPACE, "macs").parts.map(lambda macs: np.asarray(macs * 1.3e-6 + 0.017, dtype=np.float64))
_LATENCY = AdditiveCost("latency", _TIMES, 5.0, "ms")
_LIMITS = Limits(macs=1_000_000, params=60_000, extras=(_LATENCY,))
_ANSWER = search(_SPACE, _SPACE.fitness, _LIMITS)
_HOSTILE = "</script><img src=x onerror=alert(1)>"

#: What is added to a search when everything else was done too.
_MEASURED: Mapping[str, Any] = {
    "size": 241_007,
    "memory": 24_576,
    "validation_accuracy": 0.41234,
    "test_accuracy": 0.40719,
    "checkpoint": "runs/one/checkpoints/round-000120",
    "round": 120,
    "output": "subnet",
    "calibration": {"method": "federated", "clients": 20, "batches": 31, "images": 992},
    "finetune": {
        "epochs": 2,
        "clients": 18,
        "before": {"validation_accuracy": 0.41},
        "after": {"validation_accuracy": 0.4701},
    },
    "export": {
        "format": "onnx",
        "precision": "int8",
        "file": "subnet/subnet-int8.onnx",
        "file_bytes": 2_366_072,
        "max_abs_error": 3.1e-06,
        "top1_agreement": 0.998,
        "images": 5000,
        "validation_accuracy": 0.4121,
        "fp32_validation_accuracy": 0.4183,
        "files": {"images": 200, "own": True, "top1_agreement": 0.995, "accuracy": 0.415, "fp32_accuracy": 0.42},
        "latency": {
            "ms": 2.3149,
            "low": 2.29,
            "high": 2.35,
            "runs": 200,
            "runtime": "onnxruntime 1.31.1",
            "threads": 1,
            "batch": 4,
            "machine": "a machine of long name " * 5,
        },
        "predicted_ms": 2.25,
        "prediction_error": -0.026,
    },
    "latency_table": {
        "file": "table.json",
        "machine": "x86_64",
        "runtime": "onnxruntime",
        "threads": 1,
        "batch": 1,
        "validation": {
            "networks": 20,
            "mean_absolute_percentage_error": 5.12,
            "rank_correlation": 0.98,
        },
    },
    "of_the_future": {"unknown": [1, {"to": None}], "this page": 3},
}

_SCALES = {"": 1, "%": 0.01, "ms": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
_NUMBERS = re.compile(r"(?:at least )?([+-]?[\d,]+(?:\.(\d+))?(?:e([+-]\d+))?) ?(%|ms|[kMG]?B)?")


def _searched(run: str | None = "runs/one") -> dict[str, Any]:
    return search_report(_SPACE, run, _LIMITS, None, _ANSWER, 0.01234)


def _full() -> dict[str, Any]:
    report: dict[str, Any] = {**_searched(), **copy.deepcopy(dict(_MEASURED))}
    report["limits"] |= {"size": 250_000, "memory": 30_000}
    report["slack"] |= {"size": 250_000 - 241_007, "memory": 30_000 - 24_576}
    return report


def _page(report: Mapping[str, Any], *commands: str, cost: AdditiveCost | None = _LATENCY) -> Page:
    lines = layer_lines(_SPACE, _ANSWER.entry.architecture, cost)
    return Page(report, lines, Fronts(_FRONTIER, chosen=_ANSWER.entry, budget=1e6), _SPACE, commands)


def _at(report: Any, key: str) -> Any:
    for name in key.split("."):
        report = report[name]
    return report


def _numbers(report: Mapping[str, Any], inside: str = "") -> dict[str, float]:
    """Return every number of a report by its path."""
    found: dict[str, float] = {}
    for name, value in report.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{inside}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[inside + name] = value
    return found


def _check_reads_as(text: str, value: float) -> None:
    """Check that the text is the number: counts in full, others rounded, to three digits or hundredths of a percent."""
    match = _NUMBERS.fullmatch(text)
    assert match, text
    digits, decimals, exponent, unit = match.groups()
    shown = float(digits.replace(",", "")) * _SCALES[unit or ""]
    if isinstance(value, int) and not unit:
        assert shown == value
        return
    last = 10.0 ** (int(exponent or 0) - len(decimals or "")) * _SCALES[unit or ""]
    assert abs(shown - value) <= 0.5 * last + 1e-12
    assert unit == "%" or shown == pytest.approx(value, rel=0.005, abs=0.0005)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of everything there is to show."""
    path = tmp_path_factory.mktemp("page") / "full.html"
    write_page(path, _page(_full(), "search-subnet --run runs/one --flops-budget 1M", "echo done"))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_page_opens_in_silence_asks_for_nothing_and_fits_the_window(
    browser: Browser, full: Path, width: int, scheme: str
) -> None:
    with visited(browser, full, width, scheme) as visit:
        assert visit.messages == []
        assert visit.requests == [full.as_uri()]
        scroll, window = visit.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert scroll <= window == width
        ink, ground = visit.page.evaluate(
            "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
        )
        brighter = [sum(map(int, re.findall(r"\d+", colour))) for colour in (ink, ground)]
        assert (brighter[0] > brighter[1]) is (scheme == "dark")
        drawn = visit.page.locator("figure svg").bounding_box()
        assert drawn is not None
        assert width / 2 < drawn["width"] < width
        assert drawn["height"] == pytest.approx(drawn["width"] * 5 / 8, rel=0.01)


def test_every_number_of_a_report_is_shown_and_reads_as_what_it_is(browser: Browser, full: Path) -> None:
    with visited(browser, full) as visit:
        embedded = json.loads(visit.page.locator("#report").text_content() or "")
        shown = visit.page.locator("[data-key]").evaluate_all(
            "all => all.filter(one => one.checkVisibility())"
            ".map(one => [one.dataset.key, one.dataset.value, one.innerText])"
        )
    assert embedded == _full()
    for key, value, text in shown:
        assert value == json.dumps(_at(embedded, key))
        _check_reads_as(text, _at(embedded, key))
    expected = set(_numbers(_full())) - {"activation_bytes", "of_the_future.this page"}
    expected = {key for key in expected if not key.startswith("architecture.")}
    assert {key for key, *_ in shown} == expected


@pytest.mark.slow
def test_layers_are_listed_with_sums_and_bars(browser: Browser, full: Path) -> None:
    lines = layer_lines(_SPACE, _ANSWER.entry.architecture, _LATENCY)
    with visited(browser, full) as visit:
        table = visit.page.locator("table.layers")
        assert table.locator("tbody tr th").all_inner_texts() == [line.name for line in lines]
        totals = table.locator("tfoot td").all_inner_texts()[-3:]
        for column, total in zip(("macs", "params", "latency"), totals, strict=True):
            cells = table.locator(f"[data-column={column}]")
            values = cells.evaluate_all("all => all.map(cell => Number(cell.dataset.value))")
            assert math.fsum(values) == pytest.approx(_full()[column], rel=1e-12)
            _check_reads_as(total, _full()[column])
            bars = cells.locator(".bar").evaluate_all("all => all.map(bar => parseFloat(bar.style.width))")
            assert bars == pytest.approx([100 * value / max(values) for value in values], abs=0.051)


def test_the_page_says_what_was_chosen_why_and_how(browser: Browser, full: Path) -> None:
    with visited(browser, full) as visit:
        page = visit.page
        heading = page.locator("h1").inner_text()
        expected = "within 1M MACs, 60K parameters, 5 ms, 250 kB of weights and 30 kB of feature maps"
        assert heading == page.title() == f"Fittest subnet of mobilenet-tiny {expected}"
        assert " ".join((page.locator(".standing").text_content() or "").split()) == standing(_full())
        assert page.locator("html").get_attribute("lang") == "en"
        label = page.get_by_role("img").get_attribute("aria-label")
        assert label == page.locator("svg > title").text_content() == f"Fitness over MACs. {heading}."
        architecture, commands = page.locator("pre code").all_inner_texts()
        assert json.loads(architecture) == _full()["architecture"]
        assert commands.splitlines() == ["search-subnet --run runs/one --flops-budget 1M", "echo done"]
        words = page.locator("main").inner_text()
    for text in ("runs/one", "round-000120", "federated", "onnx", "int8", "subnet/subnet-int8.onnx", "onnxruntime"):
        assert text in words


def test_a_search_alone_makes_a_page_without_the_other_sections(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(path, _page(_searched(run=None), cost=None))
    with visited(browser, path, 390) as visit:
        titles = visit.page.locator("h2").all_inner_texts()
        assert visit.messages == []
        columns = visit.page.locator("table.layers thead th").all_inner_texts()
        words = visit.page.locator("body").inner_text()
        assert visit.page.locator("[data-key=activation_bytes]").inner_text().endswith(" kB")
    assert titles == ["Limits", "Frontier", "Layers", "Next better network", "Where it comes from", "Architecture"]
    assert columns[-2:] == ["MACs", "parameters"]
    assert "None" not in words
    assert os.listdir(tmp_path) == ["page.html"]


def test_hostile_names_are_only_text(browser: Browser, tmp_path: Path) -> None:
    report = {**_full(), "run": _HOSTILE, "space": _HOSTILE, "checkpoint": "'\"><script>alert(2)</script>"}
    report["export"] |= {"machine": _HOSTILE, "file": _HOSTILE}
    report["limits"] |= {_HOSTILE: 7.0}
    path = tmp_path / "page.html"
    write_page(path, _page(report, f"search-subnet --run '{_HOSTILE}'"))
    with visited(browser, path) as visit:
        assert visit.messages == []
        assert visit.requests == [path.as_uri()]
        assert visit.page.locator("main img, main script, header img").count() == 0
        assert json.loads(visit.page.locator("#report").text_content() or "") == report
        assert visit.page.locator("h1").inner_text().startswith(f"Fittest subnet of {_HOSTILE} within ")
        assert _HOSTILE in visit.page.locator("pre code").all_inner_texts()[-1]


# A page takes an eighth of a second: several stand in one name, and what is hidden is named when it fails.
@pytest.mark.parametrize("name", [" ".join([*ESCAPES, *SYNTAX][first::8]) for first in range(8)])
def test_names_hide_nothing_in_a_page_and_are_no_markup(name: str) -> None:
    space = dataclasses.replace(_SPACE, name=name)
    report = {**_full(), "space": name, "run": name, "checkpoint": name}
    page = dataclasses.replace(_page(report, f"search-subnet --run {name}"), space=space)
    html_text = render_page(page)
    hidden = {one for one in html_text if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {"\n"}
    assert hidden == set()
    shown = html.escape(printable(name), quote=True)
    title = re.search("<title>(.*?)</title>", html_text)
    assert title is not None
    assert f"Fittest subnet of {shown.replace('&#x27;', '&#39;').replace('&quot;', '&#34;')} within" in title.group(1)
    embedded = re.search(r'<script type="application/json" id="report">(.*?)</script>', html_text)
    assert embedded is not None
    assert json.loads(embedded.group(1)) == report


def test_the_bound_on_the_effectiveness_stands_beside_it() -> None:
    assert re.search(r"effectiveness ρ</th>\s*<td>.*</td>\s*<td>.*no limit", render_page(_page(_searched())))
    html_text = render_page(_page({**_searched(), "max_effectiveness": 0.75}))
    row = re.search(r"effectiveness ρ</th>.*?</tr>", html_text, re.DOTALL)
    assert row is not None
    assert "0.75" in row.group()
    assert "no limit" not in row.group()


def test_what_is_not_certified_is_said_to_be_so() -> None:
    report = {**_searched(), "certified": False, "solver": "nsga2", "next_better": None}
    html = render_page(_page(report))
    assert '<span class="badge searched">not certified</span> found by a genetic search' in html
    assert '"badge certified"' not in html


def test_a_search_for_a_fitness_names_it() -> None:
    answer = search_cheapest(_SPACE, _SPACE.fitness, 500.0, Limits())
    report = search_report(_SPACE, None, Limits(), 500.0, answer, 0.1)
    html = render_page(_page(report))
    assert "<h1>Smallest subnet of mobilenet-tiny with a fitness of at least 500</h1>" in html
    assert 'data-key="limits.min_fitness" data-value="500.0">at least 500.000<' in html


def test_no_limit_and_half_a_measurement_are_no_error() -> None:
    report = {**_searched(), "calibration": None, "finetune": {"epochs": 1}, "export": "onnx"}
    report["limits"] |= {"latency": math.inf, "joules": 2.5}
    report["slack"] |= {"latency": math.inf}
    html = render_page(_page(report))
    assert "Infinity" not in html
    assert "within 1M MACs, 60K parameters and 2.5 joules</h1>" in html
    assert 'data-key="limits.latency"' not in html
    assert 'data-key="limits.joules" data-value="2.5"' in html
    assert 'data-key="finetune.epochs" data-value="1"' in html


def test_the_same_page_has_the_same_bytes() -> None:
    assert render_page(_page(_full())) == render_page(_page(_full()))


def test_a_page_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_page(tmp_path / "file" / "page.html", _page(_searched()))

import dataclasses
import html
import re
import warnings
from pathlib import Path

import pytest
from helpers.networks.strategies import tiny_space
from helpers.runs.rankings import PLANTED, planted
from helpers.wild import ESCAPES, SYNTAX, wild_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.figures import drawn, save, words
from fedpareto.cache.plot import Fronts, front_title, plot_fronts
from fedpareto.search.comparison.results.plot import plot_rows
from fedpareto.search.comparison.results.summary import MeanStd, ResultRow
from fedpareto.search.ranking.plot import plot_ranking
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.words import printable


def _texts(path: Path) -> list[str]:
    """The texts of an SVG: matplotlib notes those of its glyphs in comments."""
    return [html.unescape(text) for text in re.findall(r"<!-- (.*?) -->", path.read_text(), re.DOTALL)]


def _in_comment(text: str) -> str:
    """What matplotlib writes into a comment: two dashes would end it."""
    return re.sub("-(?=-)", "- ", printable(text))


_NAMES = [*SYNTAX, *ESCAPES, "r$esnet$", "名前", "a\nb", "_x"]


@pytest.mark.parametrize("name", _NAMES)
def test_a_name_is_drawn_as_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.svg"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawn(1, 1) as figure:
            figure.text(0, 0, words(name))
        save(figure, path)
    assert [text.strip() for text in _texts(path)] == [_in_comment(name).strip()]


# Each is drawn otherwise where it is not escaped.
@pytest.mark.parametrize("name", ["r$esnet$", "_x", "a\nb", ESCAPES[0]])
def test_names_of_spaces_studies_and_methods_are_drawn_as_they_are(tmp_path: Path, name: str) -> None:
    space = dataclasses.replace(tiny_space(), name=name)
    path = tmp_path / "a.svg"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_fronts(path, front_title(space), Fronts(load_or_compute_frontier(tiny_space(), tiny_space().fitness)))
    assert f"Fitness over MACs in {_in_comment(name)}" in _texts(path)
    row = ResultRow(name, 1, [MeanStd(0.5, 0.0, 1)], [1e6], 1, 1, 1, 1, 1, 0)
    plot_rows(path, name, [row])
    texts = [text.strip() for text in _texts(path)]
    assert f"{_in_comment(name)}: mean ± standard deviation of 1 seed".strip() in texts
    assert _in_comment(name).strip() in texts
    sample = planted(tiny_space(), count=8, bands=2)
    plot_ranking(path, dataclasses.replace(sample, space=space), {"fitness": PLANTED})
    assert f"8 networks of {_in_comment(name)}" in _texts(path)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(wild_text().filter(bool))
def test_any_text_on_a_figure_is_drawn_without_an_error_or_a_warning(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.svg"
    with drawn(2, 2) as figure:
        axes = figure.add_subplot()
        axes.plot([1, 2], label=words(text))
        axes.set_title(words(text))
        legend = axes.legend()
        assert [label.get_text() for label in legend.get_texts()] == [words(text)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(figure, path)
    assert path.read_text().startswith("<?xml")


@given(st.text())
def test_a_label_is_never_hidden_for_its_first_character(text: str) -> None:
    assert not words(text).startswith("_")


def test_a_figure_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with drawn(2, 2) as figure:
        figure.add_subplot()
    with pytest.raises(UserError, match="cannot write"):
        save(figure, tmp_path / "file" / "a.png")

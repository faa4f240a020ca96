import dataclasses
import os
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.networks.strategies import tiny_space

from fedpareto.cache.entries import make_entries
from fedpareto.cache.exact.frontier_store import load_or_compute_frontier
from fedpareto.cache.plot import SUFFIXES, Fronts, check_plot_path, front_title, fronts_svg, plot_fronts
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.formats.units import format_quantity
from fedpareto.supernet.genes import random_genes

_STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
_SPACE = tiny_space()
_FRONTIER = load_or_compute_frontier(_SPACE, _SPACE.fitness)
_ENTRIES = make_entries(_SPACE, random_genes(_SPACE, 5, np.random.default_rng(0)), _SPACE.fitness)


def _drawn(path: Path, fronts: Fronts) -> list[str]:
    """Draw as SVG and return its texts: matplotlib notes those of its glyphs in comments."""
    plot_fronts(path, front_title(_SPACE), fronts)
    return re.findall("<!-- (.*) -->", path.read_text())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_fronts_are_drawn_in_the_format_of_the_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"front{suffix}"
    check_plot_path(path)
    plot_fronts(path, front_title(_SPACE), Fronts(_FRONTIER, entries=_ENTRIES))
    assert path.read_bytes().startswith(_STARTS[suffix])
    assert path.stat().st_size > 5000
    assert os.listdir(tmp_path) == [path.name]


def test_a_plot_names_the_space_its_axes_and_all_that_is_drawn(tmp_path: Path) -> None:
    chosen = _FRONTIER.entry(7)
    searched = (_FRONTIER.macs[::2], _FRONTIER.values[::2] - 1)
    texts = _drawn(tmp_path / "front.svg", Fronts(_FRONTIER, searched, _ENTRIES, chosen, 345_600))
    for words in (
        "Fitness over MACs in mobilenet-tiny",
        "MACs of one image (M)",
        "fitness F",
        f"exact frontier ({len(_FRONTIER.macs)} networks)",
        f"NSGA-II on its own ({len(searched[0])})",
        "cache (5 entries)",
        "budget 345.6K",
        f"chosen: {format_quantity(chosen.macs)} MACs, fitness {chosen.fitness:.1f}",
    ):
        assert words in texts


def test_only_what_is_known_is_in_the_legend(tmp_path: Path) -> None:
    texts = _drawn(tmp_path / "front.svg", Fronts(None, entries=_ENTRIES))
    assert "cache (5 entries)" in texts
    assert not [text for text in texts if text.startswith(("exact", "NSGA-II", "budget", "chosen"))]


def test_a_page_gets_the_same_picture_as_an_element_without_a_size_or_a_date(tmp_path: Path) -> None:
    fronts = Fronts(_FRONTIER, entries=_ENTRIES, chosen=_FRONTIER.entry(7))
    svg = fronts_svg(front_title(_SPACE), fronts, 'the "front" of <it>')
    assert svg == fronts_svg(front_title(_SPACE), fronts, 'the "front" of <it>')
    label = "the &quot;front&quot; of &lt;it&gt;"
    assert svg.startswith(f'<svg role="img" aria-label="{label}" ')
    assert ' viewBox="0 0 576 360" ' in svg
    assert not re.search("<svg [^>]*(width|height)=", svg)
    assert '<title>the "front" of &lt;it&gt;</title>' in svg
    assert re.findall("<!-- (.*) -->", svg) == _drawn(tmp_path / "front.svg", fronts)
    assert "metadata" not in svg


def test_dollars_in_the_name_of_a_space_are_no_formula(tmp_path: Path) -> None:
    space = dataclasses.replace(_SPACE, name=r"$\no{formula$")
    plot_fronts(tmp_path / "front.svg", front_title(space), Fronts(_FRONTIER))
    assert r"Fitness over MACs in $\no{formula$" in (tmp_path / "front.svg").read_text()


@pytest.mark.parametrize("name", ["front", "front.jpg", "front.txt"])
def test_another_suffix_names_the_allowed_ones(name: str) -> None:
    with pytest.raises(UserError, match=rf"cannot plot to {name}; allowed suffixes: \.png, \.svg, \.pdf"):
        check_plot_path(Path(name))


def test_a_plot_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        plot_fronts(tmp_path / "file" / "front.svg", front_title(_SPACE), Fronts(_FRONTIER))

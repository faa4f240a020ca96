import os
from pathlib import Path

import numpy as np
import pytest
from strategies import tiny_space

from cache.entries import make_entries
from cache.plot import SUFFIXES, check_plot_path, plot_front
from supernet.errors import UserError
from supernet.genes import random_genes

_STARTS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}
_ENTRIES = make_entries(tiny_space(), random_genes(tiny_space(), 5, np.random.default_rng(0)), tiny_space().fitness)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_front_is_drawn_in_the_format_of_the_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"front{suffix}"
    check_plot_path(path)
    plot_front(path, tiny_space(), _ENTRIES)
    assert path.read_bytes().startswith(_STARTS[suffix])
    assert os.listdir(tmp_path) == [path.name]


def test_a_plot_names_the_space_and_its_axes(tmp_path: Path) -> None:
    path = tmp_path / "front.svg"
    plot_front(path, tiny_space(), _ENTRIES)
    drawn = path.read_text()
    # matplotlib notes the text of its glyphs in comments.
    for words in (
        "Pareto cache of mobilenet-tiny: 5 entries",
        "MACs of one image (M)",
        "fitness F",
        "parameters (M)",
    ):
        assert f"<!-- {words} -->" in drawn


@pytest.mark.parametrize("name", ["front", "front.jpg", "front.txt"])
def test_another_suffix_names_the_allowed_ones(name: str) -> None:
    with pytest.raises(UserError, match=rf"cannot plot to {name}; allowed suffixes: \.png, \.svg, \.pdf"):
        check_plot_path(Path(name))


def test_a_plot_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        plot_front(tmp_path / "file" / "front.svg", tiny_space(), _ENTRIES)

from pathlib import Path

import pytest
from helpers.networks.strategies import tiny_space
from helpers.runs.rankings import PLANTED, planted
from matplotlib.image import imread

from fedpareto.search.ranking.plot import plot_ranking
from fedpareto.supernet.common.errors import UserError


def test_a_picture_has_a_panel_for_each_fitness_and_one_for_macs(tmp_path: Path) -> None:
    sample = planted(tiny_space(), count=24)
    sizes = []
    for number in (1, 2):
        path = tmp_path / f"{number}.png"
        plot_ranking(
            path, sample, {"fitness": tiny_space().fitness, "fitted": PLANTED} if number > 1 else {"f": PLANTED}
        )
        sizes.append(imread(path).shape)
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] == pytest.approx(sizes[0][1] * 1.5, abs=2)


def test_a_picture_that_cannot_be_written_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        plot_ranking(tmp_path / "file" / "a.png", planted(tiny_space(), count=8, bands=2), {"f": PLANTED})

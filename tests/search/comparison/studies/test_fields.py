import pytest

from fedpareto.search.comparison.studies.fields import quiet_config
from fedpareto.supernet.common.errors import UserError


def test_private_runs_are_compared_with_exact_statistics_only() -> None:
    private = {"clip": 1.0, "noise": 1.0}
    with pytest.raises(UserError, match=r"^study: privacy.statistics is withheld .* give privacy.statistics exact"):
        quiet_config({"privacy": private}, "study")
    assert quiet_config({"privacy": {**private, "statistics": "exact"}}, "study").privacy.noise == 1.0

"""Values of the public API: what carries an architecture is taken as one, and how values are kept."""

import json
from typing import Any

import pytest

import fedpareto as fp

_SPACE = fp.load_space("mobilenet-tiny")

#: The functions as somebody calls them who has no type checker.
_LOOSE: Any = fp


def test_whatever_carries_an_architecture_is_scored_as_it() -> None:
    answer = fp.find_subnet(_SPACE, macs="200K", progress=False)
    score = fp.score(_SPACE, answer.entry.architecture)
    carriers = (
        answer,
        answer.entry,
        score,
        answer.architecture.to_json(),
        {"macs": 3, "architecture": answer.architecture.to_json()},
        json.loads(json.dumps(score.to_json())),
    )
    for carrier in carriers:
        assert _LOOSE.score(_SPACE, carrier) == score
    assert fp.score(_SPACE, carriers) == [score] * len(carriers)


@pytest.mark.parametrize("given", [3, None, "text", object(), 0.5])
def test_what_carries_none_is_refused_by_its_place(given: object) -> None:
    with pytest.raises(fp.UserError, match="architectures is ") as caught:
        _LOOSE.score(_SPACE, given)
    assert "\n" not in str(caught.value)
    with pytest.raises(fp.UserError, match=r"architectures\[1\] is of type \w+; give an Architecture") as caught:
        _LOOSE.score(_SPACE, [fp.frontier(_SPACE, progress=False).entry(0), given])
    assert "\n" not in str(caught.value)

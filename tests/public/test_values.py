"""Values of the public API: what carries an architecture is taken as one, and how values are kept."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.runs.quick import QUICK

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


@pytest.mark.parametrize("classes", [None, 7])
def test_a_cache_is_saved_and_loaded_as_it_is(classes: int | None, tmp_path: Path) -> None:
    space = _SPACE if classes is None else fp.load_space("mobilenet-tiny", classes=classes)
    for solver in ("exact", "nsga2"):
        cache = _LOOSE.build_cache(space, 4, solver=solver, population=20, generations=3, progress=False)
        path = cache.save(tmp_path / f"{solver}.jsonl")
        # The file says of how many classes it is.
        assert fp.load_cache(path, "mobilenet-tiny") == fp.load_cache(path, space) == cache
        assert fp.load_cache(path, "mobilenet-tiny").space == space
        written = path.read_bytes()
        with pytest.raises(fp.UserError, match="exists; pass"):
            cache.save(path)
        assert path.read_bytes() == written
        assert cache.save(str(path), overwrite=True) == path
        with pytest.raises(fp.UserError, match="is a cache of mobilenet-tiny"):
            fp.load_cache(path, space, classes=5)
        with pytest.raises(fp.UserError, match="is a cache of mobilenet-tiny"):
            fp.load_cache(path, "resnet-cifar")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["exact.jsonl", "nsga2.jsonl"]
    for odd in (None, 3, tmp_path, tmp_path / "exact.jsonl/inner"):
        with pytest.raises(fp.UserError):
            cache.save(odd)


def test_a_subnet_is_copied_with_its_weights_and_never_pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = fp.open_run(fp.train(data="digits", rounds=1, clients_count=4, output="run", **QUICK).folder)
    subnet = run.extract(run.find(macs="1M", progress=False), progress=False)
    assert fp.score(run.space, subnet).macs == subnet.info.report["macs"]
    copied, same = copy.deepcopy(subnet), copy.copy(subnet)
    assert same.network is subnet.network
    images = torch.rand(2, 3, subnet.architecture.resolution, subnet.architecture.resolution)
    assert torch.equal(copied.network(images), subnet.network(images))
    with torch.no_grad():
        next(copied.network.parameters()).zero_()
    assert not torch.equal(copied.network(images), subnet.network(images))
    assert copied.accuracy("test") <= 1
    assert copied.save("copied") == Path("copied")
    for pickling in (pickle.dumps, lambda each: pickle.dumps([each]), lambda each: torch.save(each, "subnet.bin")):
        with pytest.raises(TypeError, match=r"cannot be pickled; write it with subnet\.save\(FOLDER\)") as caught:
            pickling(subnet)
        assert isinstance(caught.value, fp.UserError)

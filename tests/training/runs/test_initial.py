"""Runs that begin with another run's supernet."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.commands import Outcome, check_refused, run_main
from helpers.runs.federation import (
    MICRO,
    arguments_of,
    finished_run,
    micro_cache,
    micro_config,
    micro_space,
    write_two_classes,
)
from safetensors.torch import load_file

from fedpareto.cache.cache_file import write_cache
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.progress import ProgressListener
from fedpareto.supernet.networks.weights import Tensors, initial_tensors
from fedpareto.training.cli import main
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.partition import PartitionConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.runs.checkpoint import best_checkpoint, load_checkpoint, newest_checkpoint, save_checkpoint
from fedpareto.training.runs.folder import SPLIT, read_run_config
from fedpareto.training.runs.initial import beginning
from fedpareto.training.runs.models import Models
from fedpareto.training.runs.state import Best
from fedpareto.training.setup import new_run, resumed_run

_SUPERNET = "supernet.safetensors"
_CLASSIFIER = {"head.classifier.linear.weight", "head.classifier.linear.bias"}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run whose best checkpoint is not its newest."""
    run = finished_run(tmp_path_factory.mktemp("origin"), rounds=4)
    last = load_checkpoint(newest_checkpoint(run), MICRO.adapted(classes=10))
    state = dataclasses.replace(last.state, best=Best(3, 1.0))
    save_checkpoint(run, state, last.config, Models(last.models.supernet, last.models.velocity))
    return run


def _begin(folder: Path, init: object, **changes: Any) -> tuple[RunConfig, Tensors, list[str]]:
    """Create a run that begins with another; return its configuration, its first supernet, and what was said."""
    remarks: list[str] = []
    config = micro_config(folder, init=str(init), **changes)
    prepared = new_run(config, ProgressListener(remark=remarks.append))
    assert prepared.checkpoint.state.round == 0
    return read_run_config(prepared.folder), prepared.checkpoint.models.supernet, remarks


def _same(first: Tensors, second: Tensors, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Check that tensors are equal but for some that differ."""
    assert first.keys() == second.keys()
    assert {name for name in first if not torch.equal(first[name], second[name])} == but


@pytest.mark.parametrize("form", ["run", "run with a slash", "link", "relative"])
def test_a_run_means_its_best_checkpoint(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    (tmp_path / "link").symlink_to(origin)
    monkeypatch.chdir(origin.parent)
    init = {"run": origin, "run with a slash": f"{origin}/", "link": tmp_path / "link", "relative": "./run"}[form]
    config, tensors, remarks = _begin(tmp_path, init)
    assert config.init == str(best_checkpoint(origin))
    _same(tensors, load_file(best_checkpoint(origin) / _SUPERNET))
    assert f"training begins with the supernet of {best_checkpoint(origin)}" in remarks


def test_a_checkpoint_of_a_run_is_taken_itself(origin: Path, tmp_path: Path) -> None:
    newest = newest_checkpoint(origin)
    config, tensors, _ = _begin(tmp_path, newest)
    assert config.init == str(newest) != str(best_checkpoint(origin))
    _same(tensors, load_file(newest / _SUPERNET))


@pytest.mark.slow
def test_a_run_does_not_need_the_one_it_began_with_any_more(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(origin, tmp_path / "origin"))
    arguments = [*arguments_of(micro_config(tmp_path, rounds=2)), "--init", str(copy)]
    assert run_main(main, capsys, *arguments).code == 0
    again = [*arguments[:-2], "--output", str(tmp_path / "again"), "--init", str(copy)]
    assert run_main(main, capsys, *again).code == 0
    shutil.rmtree(copy)
    shutil.rmtree(tmp_path / "run/checkpoints/round-000002")
    resumed = run_main(main, capsys, "--resume", tmp_path / "run")
    assert resumed.code == 0, resumed.err
    last = f"checkpoints/round-000002/{_SUPERNET}"
    assert (tmp_path / "run" / last).read_bytes() == (tmp_path / "again" / last).read_bytes()


def test_other_classes_get_a_classifier_of_their_own(origin: Path, tmp_path: Path) -> None:
    theirs = load_file(best_checkpoint(origin) / _SUPERNET)
    fresh = initial_tensors(MICRO, torch.Generator().manual_seed(0))
    begun = beginning(str(origin), MICRO)
    # As many classes of other names, and the same ones in another order.
    for classes in ("abcdefghij", "1023456789"):
        tensors, words = begun.tensors(tuple(classes), fresh)
        assert words.endswith("; its classifier is drawn anew, as the classes are others")
        _same(tensors, theirs, _CLASSIFIER)
        _same({name: tensors[name] for name in _CLASSIFIER}, {name: fresh[name] for name in _CLASSIFIER})
    # Fewer, in a whole run.
    two = micro_space(classes=2)
    write_two_classes(tmp_path / "images")
    remarks: list[str] = []
    config = micro_config(
        tmp_path,
        init=str(origin),
        data=DataConfig(name="imagefolder", root=str(tmp_path / "images")),
        partition=PartitionConfig("iid"),
        clients=ClientsConfig(count=2, per_round=2),
    )
    write_cache(tmp_path / "cache.jsonl", micro_cache(two))
    tensors = new_run(config, ProgressListener(remark=remarks.append)).checkpoint.models.supernet
    assert {name for name in tensors if tensors[name].shape != theirs[name].shape} == _CLASSIFIER
    assert all(torch.equal(tensors[name], theirs[name]) for name in tensors.keys() - _CLASSIFIER)
    assert [words for words in remarks if "drawn anew" in words]


@pytest.mark.parametrize(
    "changes",
    [{"kernels": (3,)}, {"expands": (2, 4)}, {"width_multipliers": (1.0,)}, {"norm": "group"}, {"depths": (2,)}],
)
def test_a_space_of_other_networks_is_refused_by_what_differs(origin: Path, changes: dict[str, Any]) -> None:
    other = micro_space(name="other", **changes)
    with pytest.raises(UserError) as caught:
        beginning(str(origin), other)
    (field,) = changes
    assert str(caught.value) == (
        f"init is {origin}, a supernet of micro, which builds other networks than other (they differ in {field}); "
        f"train its own space with --space {origin}/space.yaml"
    )
    # Another name and another fitness are the same networks.
    beginning(str(origin), micro_space(name="other"))


@pytest.mark.parametrize(
    "init", ["nowhere", "origin/config.yaml", "origin/checkpoints", "origin/checkpoints/round-000009", "", " "]
)
def test_what_is_no_run_and_no_checkpoint_is_refused_before_anything_is_written(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], init: str
) -> None:
    given = init.replace("origin", str(origin))
    arguments = arguments_of(micro_config(tmp_path))
    line = check_refused(run_main(main, capsys, *arguments, "--init", given), "train-supernet")
    assert (f"init is {given}; " if init.strip() else "init is empty") in line
    assert ("holds no run: " in line) == bool(init.strip())
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_refused(origin: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(origin, tmp_path / "origin"))
    (best_checkpoint(copy) / _SUPERNET).unlink()
    with pytest.raises(UserError, match="is damaged"):
        _begin(tmp_path, copy)
    assert not (tmp_path / "run").exists()


def _resume(capsys: pytest.CaptureFixture[str], run: Path, *arguments: object) -> Outcome:
    return run_main(main, capsys, "--resume", run, *arguments)


def test_a_run_that_has_begun_begins_with_nothing_else(
    origin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(origin, tmp_path / "run"))
    line = check_refused(_resume(capsys, run, "--init", origin), "train-supernet")
    assert f"init is {origin}, but {run} has begun already, with a supernet of its own; leave init out" in line
    (tmp_path / "begun").mkdir()
    begun = finished_run(tmp_path / "begun", rounds=1, init=str(origin))
    line = check_refused(_resume(capsys, begun, "--init", run), "train-supernet")
    assert f"has begun already, with {best_checkpoint(origin)}" in line


def test_a_private_run_says_that_its_account_is_its_own(origin: Path, tmp_path: Path) -> None:
    _, _, remarks = _begin(tmp_path, origin, privacy=PrivacyConfig(clip=1.0))
    assert (
        "the account of privacy is of this run alone: it says nothing of what that supernet was trained on" in remarks
    )


def test_where_a_run_came_from_is_written_once_and_read_as_text(origin: Path, tmp_path: Path) -> None:
    config, _, _ = _begin(tmp_path, origin)
    written = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert written["init"] == config.init
    assert (tmp_path / "run" / SPLIT).is_file()
    assert resumed_run(tmp_path / "run", config, ProgressListener()).config.init == config.init

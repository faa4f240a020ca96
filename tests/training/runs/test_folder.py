import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.runs.federation import MICRO, NORMALISATION, micro_cache

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import DIGESTS, DamagedError
from fedpareto.supernet.common.storage.files import record
from fedpareto.training.config.data import DataConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig, write_config
from fedpareto.training.data.split import Split
from fedpareto.training.runs.folder import (
    CACHE,
    CONFIG,
    NOISE_KEY,
    SPACE,
    SPLIT,
    RunError,
    check_new_run,
    check_run,
    create_run,
    locked,
    read_run_cache,
    read_run_config,
    read_space,
    read_split,
)

_SPLIT = Split("0123456789abcdef", ("a", "b"), [4, 9], [[0, 1], [2, 3, 5]], NORMALISATION)
_FILES = (CONFIG, SPACE, CACHE, SPLIT)


def _first_checkpoint(into: Path) -> None:
    (into / "checkpoints" / "round-000000").mkdir(parents=True)


def _create(folder: Path) -> RunConfig:
    config = RunConfig(space="micro.yaml", output=str(folder), seed=5)
    create_run(folder, config, MICRO, micro_cache(), _SPLIT, _first_checkpoint, {})
    return config


def test_a_new_run_holds_everything_that_is_read_back_from_it(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "mine"
    config = _create(folder)
    check_run(folder)
    assert read_run_config(folder) == config
    assert read_space(folder) == MICRO
    found, written = read_run_cache(folder, MICRO), micro_cache()
    assert [entry.architecture for entry in found.entries] == [entry.architecture for entry in written.entries]
    assert (found.fitness, found.solver) == (written.fitness, written.solver)
    assert read_split(folder) == _SPLIT
    assert (folder / "checkpoints" / "round-000000").is_dir()
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_an_empty_folder_becomes_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    _create(folder)
    check_run(folder)


@pytest.mark.parametrize("error", [UserError("the disk is full"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_run_that_cannot_be_completed_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    folder = tmp_path / "run"

    def fail(into: Path) -> None:
        _first_checkpoint(into)
        raise error

    with pytest.raises((UserError, KeyboardInterrupt)):
        create_run(folder, RunConfig(), MICRO, micro_cache(), _SPLIT, fail, {})
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    left = tmp_path / ".run.tmp"
    left.mkdir()
    (left / "junk").write_text("half a run")
    _create(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not (folder / "junk").exists()


def test_an_output_below_a_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file") as caught:
        _create(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder you may write to"):
        check_new_run(tmp_path / "file" / "run")


def test_a_new_or_empty_folder_is_free(tmp_path: Path) -> None:
    check_new_run(tmp_path / "new")
    check_new_run(tmp_path)


def test_a_folder_that_holds_a_run_offers_to_resume_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _create(folder)
    with pytest.raises(
        RunError,
        match=f"already holds a run; choose another --output, or go on with: train-supernet --resume {folder}$",
    ):
        check_new_run(folder)


def test_other_peoples_files_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    for taken in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="exists and is not an empty folder; choose another --output"):
            check_new_run(taken)


@pytest.mark.parametrize("name", _FILES)
def test_a_folder_that_lacks_a_file_of_a_run_is_refused_and_the_file_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "run"
    _create(folder)
    (folder / name).unlink()
    with pytest.raises(RunError, match=f"holds no run: {folder / name} is missing"):
        check_run(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"digest": "x"}', '{"normalisation": []}'])
def test_a_damaged_split_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / SPLIT).write_text(text)
    with pytest.raises(RunError, match=str(tmp_path / SPLIT)) as caught:
        read_split(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [CONFIG, SPACE])
@pytest.mark.parametrize("text", ["", "a: [", "- 1", "name: 3", "unknown_field: 1"])
def test_a_damaged_configuration_or_space_is_an_error_of_one_line_that_names_it(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    read = read_run_config if name == CONFIG else read_space
    with pytest.raises(UserError, match=str(tmp_path / name)) as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("digest", 3),
        ("classes", ["a", 1]),
        ("classes", "ab"),
        ("validation", [4, -9]),
        ("validation", [4.0]),
        ("validation", [True]),
        ("clients", [[0, 1], 2]),
        ("clients", [[0, "1"]]),
        ("clients", {"0": [1]}),
        ("normalisation", [0.5]),
        ("normalisation", {"mean": [0.5], "std": [-0.5]}),
        ("normalisation", {"mean": [None], "std": [0.5]}),
    ],
)
def test_a_split_with_a_field_of_another_kind_names_it(tmp_path: Path, field: str, value: object) -> None:
    fields = dataclasses.asdict(_SPLIT)
    (tmp_path / SPLIT).write_text(json.dumps({**fields, field: value}))
    with pytest.raises(RunError, match=rf"{tmp_path / SPLIT}: {field}.* is .*; it must be"):
        read_split(tmp_path)


@pytest.mark.parametrize("name", [*_FILES, NOISE_KEY, DIGESTS])
def test_one_changed_digit_of_any_file_is_found(tmp_path: Path, name: str) -> None:
    folder, generator = tmp_path / "run", np.random.default_rng(0)
    config = RunConfig(
        space="micro.yaml", output=str(folder), privacy=PrivacyConfig(clip=1.0, noise=1.0), method="fedavg"
    )
    create_run(folder, config, MICRO, micro_cache(), _SPLIT, _first_checkpoint, {})
    content = (folder / name).read_bytes()
    places = [place for place, character in enumerate(content) if chr(character).isdigit()]
    for place in generator.choice(places, 10, replace=False):
        digit = (int(chr(content[place])) + generator.integers(1, 10)) % 10
        (folder / name).write_bytes(content[:place] + str(digit).encode() + content[place + 1 :])
        with pytest.raises(UserError) as caught:
            check_run(folder)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value) or name == DIGESTS
    (folder / name).write_bytes(content)
    check_run(folder)


@pytest.mark.parametrize(
    "read", [read_run_config, read_space, read_split, lambda folder: read_run_cache(folder, MICRO)]
)
def test_every_reader_looks_at_the_digest(tmp_path: Path, read: Callable[[Path], object]) -> None:
    folder = tmp_path / "run"
    _create(folder)
    before = read(folder)
    for name in _FILES:
        path = folder / name
        path.write_bytes(path.read_bytes().rstrip(b"\n") + b" \n")
    with pytest.raises(DamagedError, match=r"is damaged \(its digest does not fit\)"):
        read(folder)
    # A run of an earlier program has none.
    (folder / DIGESTS).unlink()
    if read is not read_run_config:
        assert read(folder) == before


def test_files_in_folders_of_a_run_have_digests_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _create(folder)
    (folder / "inputs").mkdir()
    (folder / "inputs" / "clients.jsonl").write_text("{}\n")
    record(folder / "inputs")
    check_run(folder)
    (folder / "inputs" / "clients.jsonl").write_text("{} \n")
    with pytest.raises(DamagedError, match=r"inputs/clients\.jsonl is damaged"):
        check_run(folder)


def test_a_configuration_that_is_written_again_keeps_its_digest_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    config = _create(folder)
    for root in ("here", "there", "here", "elsewhere"):
        config = dataclasses.replace(config, data=DataConfig(root=root))
        write_config(folder / CONFIG, config)
        check_run(folder)
        assert read_run_config(folder) == config


def test_a_run_of_an_earlier_program_says_that_damage_may_go_unnoticed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    _create(folder)
    check_run(folder)
    assert capsys.readouterr().err == ""
    (folder / DIGESTS).unlink()
    check_run(folder)
    assert f"{folder} has no {DIGESTS}: an earlier version wrote it" in capsys.readouterr().err


def test_a_cache_of_another_space_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _create(folder)
    with pytest.raises(UserError, match="micro"):
        read_run_cache(folder, MICRO.adapted(classes=3))


def test_files_are_plain_yaml_and_json(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _create(folder)
    assert yaml.safe_load((folder / CONFIG).read_text())["seed"] == 5
    assert yaml.safe_load((folder / SPACE).read_text())["name"] == "micro"
    split = json.loads((folder / SPLIT).read_text())
    assert split.keys() == {field.name for field in dataclasses.fields(Split)}


_HOLD = """
import sys
from pathlib import Path
from fedpareto.training.runs.folder import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_never_write_one_run(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"another process is training {tmp_path}"), locked(tmp_path):
            pass
        other.kill()
        other.wait()
    # A killed process has lost it.
    with locked(tmp_path):
        pass


def test_a_lock_is_free_again_after_the_run(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path):
            pass
    with pytest.raises(ValueError, match="broken"), locked(tmp_path):
        raise ValueError("broken")
    with locked(tmp_path):
        pass


def _link(path: Path) -> None:
    path.symlink_to("precious.txt")


def _dangling_link(path: Path) -> None:
    path.symlink_to("nothing")


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [_link, _dangling_link, _folder, _pipe])
def test_a_lock_that_is_something_else_is_refused_in_one_line_and_nothing_is_touched(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("do not empty")
    make(tmp_path / ".lock")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RunError, match=r"\.lock must be an empty file .*; remove it") as caught, locked(tmp_path):
        pass
    assert "\n" not in str(caught.value)
    assert precious.read_text() == "do not empty"
    assert sorted(os.listdir(tmp_path)) == before


def test_a_lock_is_never_written_to(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    path.write_text("somebody's own")
    path.chmod(0o444)
    with locked(tmp_path):
        assert path.read_text() == "somebody's own"
    assert path.read_text() == "somebody's own"


def test_a_lock_that_cannot_be_made_is_an_error_of_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(RunError, match=r"cannot open .*\.lock, which keeps two processes apart: No such file"),
        locked(tmp_path / "gone"),
    ):
        pass

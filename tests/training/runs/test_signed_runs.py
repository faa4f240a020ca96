"""Signed runs, from the first checkpoint to the delivered subnet, and what is refused on the way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import Outcome, called, check_refused
from helpers.runs.federation import arguments_of, micro_config, write_micro
from helpers.trust.keys import KeyPair, write_pair

import fedpareto as fp
from fedpareto.search.cli import main as search_subnet
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.provenance import PROVENANCE, without_secrets
from fedpareto.supernet.common.storage.digests import SIGNATURE, digest_of, read_digests
from fedpareto.supernet.common.storage.files import record
from fedpareto.training.cli import main as train_supernet
from fedpareto.training.runs.checkpoint import newest_checkpoint
from fedpareto.training.runs.provenance import entries_digest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signed")


@pytest.fixture(scope="module")
def keys(place: Path) -> KeyPair:
    return write_pair(place)


@pytest.fixture(scope="module")
def stranger(place: Path) -> KeyPair:
    return write_pair(place, "stranger", 2)


@pytest.fixture(scope="module")
def made(place: Path, keys: KeyPair) -> Path:
    """The folder of a signed run of two rounds."""
    outcome = called(train_supernet, *arguments_of(micro_config(place, rounds=2)), "--sign", keys.private)
    assert outcome.code == 0, outcome.err
    return place / "run"


@pytest.fixture(scope="module")
def delivered(place: Path, made: Path, keys: KeyPair) -> Path:
    """A signed subnet of it."""
    outcome = _search(made, "--output", place / "subnet", "--sign", keys.private, "--verify", keys.public)
    assert outcome.code == 0, outcome.err
    return place / "subnet"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the signed run, to be spoiled."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def _search(run: Path, *arguments: object) -> Outcome:
    return called(search_subnet, "--run", run, "--flops-budget", "300K", *arguments)


def _refused(outcome: Outcome, prog: str) -> str:
    """Check that nothing was loaded or written and one line said so; return it."""
    return check_refused(outcome, prog)


def test_every_checkpoint_and_subnet_is_signed_and_passes(
    made: Path, delivered: Path, keys: KeyPair, tmp_path: Path
) -> None:
    checkpoints = sorted((made / "checkpoints").iterdir())
    assert [(path / SIGNATURE).is_file() for path in checkpoints] == [True, True]
    fp.load_subnet(delivered, verify=keys.public)
    fp.load_subnet(delivered)
    opened = fp.open_run(made, verify=keys.public)
    saved = opened.extract(opened.find(macs="300K", progress=False), progress=False).save(
        tmp_path / "saved", sign=keys.private
    )
    fp.load_subnet(saved, verify=keys.public)
    fp.train(resume=made, verify=keys.public, progress=False)


def _alter_space(run: Path) -> None:
    path = run / "space.yaml"
    path.write_text(path.read_text() + "# \n")
    record(run, ["space.yaml"])


def _alter_split(run: Path) -> None:
    path = run / "partition.json"
    split = json.loads(path.read_text())
    split["normalisation"]["mean"][0] += 0.25
    path.write_text(json.dumps(split))
    record(run, ["partition.json"])


def _alter_cache(run: Path) -> None:
    path = run / "cache.jsonl"
    path.write_bytes(path.read_bytes() + b"\n")
    record(run, ["cache.jsonl"])


def _alter_config(run: Path) -> None:
    path = run / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["client"]["lr"] = 0.5
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    record(run, ["config.yaml"])


def _alter_supernet(run: Path) -> None:
    path = newest_checkpoint(run) / "supernet.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    record(path.parent)


def _unsigned(run: Path) -> None:
    (newest_checkpoint(run) / SIGNATURE).unlink()


def _extra(run: Path) -> None:
    (newest_checkpoint(run) / "branch-x.safetensors").write_bytes(b"")


def _older_as_newest(run: Path) -> None:
    newest = newest_checkpoint(run)
    older = run / "checkpoints" / "round-000001"
    shutil.rmtree(newest)
    shutil.copytree(older, newest)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        pytest.param(_alter_space, "space.yaml is not the file that", marks=pytest.mark.slow),
        (_alter_split, "partition.json is not the file that"),
        pytest.param(_alter_cache, "cache.jsonl is not the file that", marks=pytest.mark.slow),
        pytest.param(_alter_config, "client.lr is 0.5, but the run was trained with 0.05", marks=pytest.mark.slow),
        pytest.param(_alter_supernet, "does not fit the files in its folder", marks=pytest.mark.slow),
        pytest.param(_unsigned, "is not signed", marks=pytest.mark.slow),
        pytest.param(_extra, "branch-x.safetensors is not among the signed files", marks=pytest.mark.slow),
        pytest.param(_older_as_newest, "was signed as the checkpoint of round 1", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_tampered_with_is_verified_by_nobody(
    run: Path, keys: KeyPair, tmp_path: Path, attack: Callable[[Path], None], words: str
) -> None:
    attack(run)
    before = sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file())
    search = _search(run, "--checkpoint", "newest", "--output", tmp_path / "out", "--verify", keys.public)
    assert words in _refused(search, "search-subnet")
    resumed = called(train_supernet, "--resume", run, "--rounds", 3, "--verify", keys.public)
    assert words in _refused(resumed, "train-supernet")
    begun = [*arguments_of(micro_config(tmp_path, rounds=1)), "--output", tmp_path / "new"]
    for init in (run, newest_checkpoint(run)):
        line = _refused(called(train_supernet, *begun, "--init", init, "--verify", keys.public), "train-supernet")
        assert words in line
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        fp.open_run(run, checkpoint="newest", verify=keys.public)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "new").exists()
    assert sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()) == before


def test_somebody_elses_run_and_subnet_are_refused(made: Path, delivered: Path, stranger: KeyPair) -> None:
    assert "is signed with another key" in _refused(_search(made, "--verify", stranger.public), "search-subnet")
    with pytest.raises(UserError, match="is signed with another key"):
        fp.load_subnet(delivered, verify=stranger.public)
    with pytest.raises(UserError, match="is signed with another key"):
        fp.train(resume=made, verify=stranger.public, progress=False)


def test_a_signature_that_does_not_fit_is_refused_without_a_key(run: Path) -> None:
    _alter_supernet(run)
    line = _refused(_search(run, "--checkpoint", "newest"), "search-subnet")
    assert "is damaged" in line
    assert "does not fit the files in its folder" in line
    assert "does not fit" in _refused(called(train_supernet, "--resume", run, "--rounds", 3), "train-supernet")


@pytest.mark.slow
def test_a_run_that_goes_on_without_the_key_says_so_and_is_refused_from_there(run: Path, keys: KeyPair) -> None:
    outcome = called(train_supernet, "--resume", run, "--rounds", 3)
    assert outcome.code == 0, outcome.err
    assert "those from here on are not, without --sign KEY" in outcome.err
    assert not (newest_checkpoint(run) / SIGNATURE).exists()
    assert "is not signed" in _refused(_search(run, "--verify", keys.public), "search-subnet")
    outcome = called(train_supernet, "--resume", run, "--rounds", 4, "--sign", keys.private)
    assert outcome.code == 0, outcome.err
    assert _search(run, "--checkpoint", "newest", "--verify", keys.public).code == 0


@pytest.mark.slow
def test_a_signed_run_trains_what_an_unsigned_one_does(made: Path, tmp_path: Path) -> None:
    assert called(train_supernet, *arguments_of(micro_config(tmp_path, rounds=2))).code == 0
    first, second = (newest_checkpoint(each) / "supernet.safetensors" for each in (made, tmp_path / "run"))
    assert digest_of(first) == digest_of(second)


def test_keys_that_nothing_reads_are_refused(tmp_path: Path, made: Path, keys: KeyPair) -> None:
    line = _refused(
        called(train_supernet, *arguments_of(micro_config(tmp_path)), "--verify", keys.public), "train-supernet"
    )
    assert "it goes with resume or init" in line
    assert "--sign is read only with --run and --output" in _refused(
        _search(made, "--sign", keys.private), "search-subnet"
    )
    space = called(search_subnet, "--space", "mobilenet-tiny", "--flops-budget", "1M", "--verify", keys.public)
    assert "--verify is read only with --run" in _refused(space, "search-subnet")
    keys_of_config = yaml.safe_load((made / "config.yaml").read_text()).keys()
    assert not {"sign", "verify"} & keys_of_config


def test_provenance_says_what_a_run_and_a_subnet_were_made_with(made: Path, delivered: Path, keys: KeyPair) -> None:
    of_run = json.loads((made / PROVENANCE).read_text())
    assert of_run["digests"] == {
        "data": digest_of(made / "partition.json"),
        "space": digest_of(made / "space.yaml"),
        "cache": entries_digest(made / "cache.jsonl"),
    }
    (session,) = of_run["sessions"]
    assert session["command"].startswith("train-supernet --config ")
    assert session["versions"].keys() >= {"fedpareto", "python", "torch", "numpy"}
    assert str(keys.private) not in session["command"]
    assert PROVENANCE in read_digests(made)
    assert (newest_checkpoint(made) / PROVENANCE).read_bytes() == (made / PROVENANCE).read_bytes()
    of_subnet = json.loads((delivered / PROVENANCE).read_text())
    assert of_subnet["run"] == of_run
    checkpoint = made / "checkpoints" / of_subnet["checkpoint"]["name"]
    assert of_subnet["checkpoint"]["supernet"] == digest_of(checkpoint / "supernet.safetensors")
    assert PROVENANCE in read_digests(delivered)


@pytest.mark.slow
def test_provenance_is_the_same_for_the_same_and_notes_every_other_session(tmp_path: Path) -> None:
    space, cache = write_micro(tmp_path)

    def trained(folder: Path) -> str:
        folder.mkdir()
        fp.train(space, cache=cache, progress=False, **_settings(folder))
        return (folder / "run" / PROVENANCE).read_text()

    first = trained(tmp_path / "a")
    assert first == trained(tmp_path / "b")
    run = tmp_path / "a" / "run"
    fp.train(resume=run, progress=False)
    assert (run / PROVENANCE).read_text() == first
    fp.train(resume=run, rounds=2, progress=False)
    sessions = json.loads((run / PROVENANCE).read_text())["sessions"]
    assert [session["after_round"] for session in sessions] == [0, 1]
    assert sessions[0]["configuration"] != sessions[1]["configuration"]


def _settings(folder: Path) -> dict[str, Any]:
    federation = {"clients_count": 4, "clients_per_round": 2, "client_epochs": 1, "device": "cpu", "precision": "fp32"}
    execution = {"execution": {"kernels": "torch", "workers": 1, "threads": 1}}
    return {"data": "digits", "rounds": 1, **federation, **execution, "output": folder / "run"}


def test_a_command_line_is_kept_without_its_secrets() -> None:
    words = [
        "train-supernet",
        "--sign",
        "k.pem",
        "--rounds",
        "3",
        "--sign=k.pem",
        "--x.api-key",
        "abc",
        "--a",
        "--sign",
    ]
    hidden = ["train-supernet", "--sign", "HIDDEN", "--rounds", "3", "--sign=HIDDEN", "--x.api-key", "HIDDEN"]
    assert without_secrets(words) == [*hidden, "--a", "--sign"]
    assert without_secrets(["--data.root", "https://me:pass@host/x"]) == ["--data.root", "https://HIDDEN@host/x"]


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on(run: Path) -> None:
    for path in (run / PROVENANCE, *run.rglob("digests.json"), *run.rglob(SIGNATURE)):
        path.unlink()
    for state in run.rglob("state.json"):
        content = json.loads(state.read_text())
        state.write_text(json.dumps({**content, "version": 1}))
        (state.parent / PROVENANCE).unlink()
    outcome = called(train_supernet, "--resume", run, "--rounds", 3)
    assert outcome.code == 0, outcome.err
    assert not (run / "digests.json").exists()
    assert json.loads((run / PROVENANCE).read_text())["sessions"][0]["after_round"] == 2

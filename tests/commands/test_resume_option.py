"""What ``--resume`` is given decides whether a run goes on; nothing given to it ever starts a new one."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from helpers.commands import Outcome, check_refused, run_main
from helpers.networks.strategies import runs
from helpers.runs.federation import finished_run
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.training.cli import _parser, _resumed, main
from fedpareto.training.runs.folder import RunError, check_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    return finished_run(tmp_path_factory.mktemp("finished"), rounds=1)


Resume = Callable[..., Outcome]


@pytest.fixture
def resume(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Resume:
    """Run the command with a complete configuration beside a finished ``run``; a new training would be ``new``."""
    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    new = yaml.safe_load(Path("run/config.yaml").read_text())
    Path("new.yaml").write_text(yaml.safe_dump({**new, "output": "new"}))

    def command(*arguments: object) -> Outcome:
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}
        outcome = run_main(main, capsys, "--config", "new.yaml", *arguments)
        assert not Path("new").exists()
        after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and path.name != ".lock"}
        assert after == before
        return outcome

    return command


_UNSET = "resume is empty, as if a variable was not set; name a run's folder, or leave resume out"


@pytest.mark.parametrize("arguments", [("--resume", ""), ("--resume=",), ("--resume", " "), ("--resume= \t",)])
def test_nothing_is_refused_as_an_unset_variable(resume: Resume, arguments: Sequence[str]) -> None:
    assert _UNSET in check_refused(resume(*arguments), "train-supernet")


@pytest.mark.parametrize("text", ["resume:", "resume: null", "resume: ''", 'resume: "  "', "resume: ~"])
def test_nothing_in_a_file_is_refused_likewise(resume: Resume, text: str) -> None:
    Path("more.yaml").write_text(f"rounds: 1\n{text}\n")
    assert "resume is empty" in check_refused(resume("--config", "more.yaml"), "train-supernet")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nowhere", "nowhere holds no run: there is no such folder"),
        ("null", "null holds no run: there is no such folder"),
        (".", ". holds no run: config.yaml is missing"),
        ("run/config.yaml", "run/config.yaml holds no run: it is a file; it is a part of the run run"),
        ("run/checkpoints", "run/checkpoints/config.yaml is missing; it is a part of the run run"),
        ("run/checkpoints/round-000001", "config.yaml is missing; it is a part of the run run"),
        ("run/checkpoints/round-000001/state.json", "it is a file; it is a part of the run run"),
        ("run/nothing/there", "run/nothing/there holds no run: there is no such folder; it is a part of the run run"),
        ("x" * 300, "File name too long"),
    ],
)
def test_what_holds_no_run_is_refused_by_what_it_is(resume: Resume, path: str, reason: str) -> None:
    assert reason in check_refused(resume("--resume", path), "train-supernet")


@pytest.mark.parametrize(
    "arguments",
    [("--resume", "run", "--resume", "else"), ("--resume=run", "--resume=else"), ("--resume=a", "--resume", "run")],
)
def test_two_runs_are_refused(resume: Resume, arguments: Sequence[str]) -> None:
    assert "--resume is given twice, as " in check_refused(resume(*arguments), "train-supernet")


@pytest.mark.parametrize(
    "path", ["run", "run/", "./run", "run/.", "else/../run", "link", "link/", "{absolute}", "{link}"]
)
def test_a_run_goes_on_however_its_folder_is_spelled(resume: Resume, tmp_path: Path, path: str) -> None:
    Path("link").symlink_to("run")
    Path("else").mkdir()
    given_path = path.format(absolute=tmp_path / "run", link=tmp_path / "link")
    # The configuration's output is not that of the run.
    config = Path("new.yaml")
    config.write_text(config.read_text().replace("output: new\n", ""))
    outcome = resume("--resume", given_path)
    assert outcome.code == 0, outcome.err
    assert f"{Path(given_path)} is finished after 1 round; give it more with --rounds or --compute" in outcome.err


@pytest.mark.parametrize("arguments", [("--resume=run",), ("--resume", "run", "--resume", "run")])
def test_a_run_goes_on_however_the_option_is_given(resume: Resume, arguments: Sequence[str]) -> None:
    config = Path("new.yaml")
    config.write_text(config.read_text().replace("output: new\n", ""))
    outcome = resume(*arguments)
    assert (outcome.code, "run is finished after 1 round" in outcome.err) == (0, True)


def test_a_configuration_file_may_name_the_run(resume: Resume, capsys: pytest.CaptureFixture[str]) -> None:
    Path("go-on.yaml").write_text("resume: run\n")
    outcome = run_main(main, capsys, "--config", "go-on.yaml")
    assert outcome.code == 0
    assert "run is finished" in outcome.err
    Path("go-on.yaml").write_text("resume: nowhere\nrounds: 1\n")
    assert "nowhere holds no run" in check_refused(run_main(main, capsys, "--config", "go-on.yaml"), "train-supernet")


def test_another_output_is_refused(resume: Resume) -> None:
    line = check_refused(resume("--resume", "run"), "train-supernet")
    assert "output is new, but a resumed run goes on in its own folder run; leave output out" in line
    assert resume("--resume", "run", "--output", "run").code == 0
    assert resume("--resume", "run", "--output", Path("run").absolute()).code == 0


def test_a_word_that_begins_like_it_starts_nothing(resume: Resume) -> None:
    for arguments in (("--resum", "nowhere"), ("--res=nowhere",), ("--resum", "")):
        check_refused(resume(*arguments), "train-supernet")


@pytest.mark.slow
@runs(25)
@given(st.text(max_size=12))
def test_only_what_was_not_given_starts_a_new_run(text: str) -> None:
    parser = _parser()
    for arguments in ([f"--resume={text}"], ["--rounds", "3", f"--resume={text}", "--seed", "1"]):
        values = parser.parse(arguments)
        if text.strip():
            assert _resumed(values) == Path(text)
        else:
            with pytest.raises(UserError, match="resume is empty"):
                _resumed(values)
    assert _resumed(parser.parse(["--rounds", "3"])) is None


@given(st.lists(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=3))
def test_a_folder_that_holds_no_run_is_refused_in_one_line(parts: list[str]) -> None:
    with pytest.raises(RunError, match="holds no run: there is no such folder") as caught:
        check_run(Path("/nowhere", *parts))
    assert "\n" not in str(caught.value)

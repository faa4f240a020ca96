"""Where the public API writes to and reads from: outputs of resumed runs, and functions that give the images."""

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.commands import check_refused, run_main
from helpers.processes import PATIENCE
from helpers.runs.quick import QUICK

import fedpareto as fp
from fedpareto.search.cli import main as search_subnet
from fedpareto.training import session
from fedpareto.training.cli import main as train_supernet
from fedpareto.training.data.functions import called
from fedpareto.training.runs.reservation import reserved
from fedpareto.training.setup import new_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run in the working folder, ``run``, which was ``before`` when it was trained."""
    monkeypatch.chdir(tmp_path)
    fp.train(data="digits", rounds=1, clients_count=4, output="before", **QUICK)
    Path("before").rename("run")
    return Path("run")


def test_both_doors_hold_a_resumed_run_to_its_own_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("link").symlink_to("run")
    for same in ("run", "./run/", "link", str(run.absolute()), None):
        assert fp.train(resume=run, output=same, progress=False).finished
        options = () if same is None else ("--output", same)
        assert run_main(train_supernet, capsys, "--resume", run, *options).code == 0
    # Where it was before is another place by now.
    for other in ("before", "run/inner", ".", str(Path("before").absolute())):
        expected = f"output is {other}, but a resumed run goes on in its own folder"
        with pytest.raises(fp.UserError, match=expected):
            fp.train(resume=run, output=other, progress=False)
        assert expected in check_refused(
            run_main(train_supernet, capsys, "--resume", run, "--output", other), "train-supernet"
        )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("images[0] = again", "the function drifting:load returns other images than those"),
        ("labels = labels[: len(labels) - again]; images = images[: len(labels)]", "the function drifting:load re"),
        ("if again: raise OSError('gone')", "drifting:load failed: OSError: gone"),
    ],
)
def test_a_function_that_changes_its_mind_is_named(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("drifting.py").write_text(
        "from pathlib import Path\nimport numpy as np\ndef load():\n    again = Path('run').is_dir()\n"
        "    images = np.arange(160 * 64).reshape(160, 8, 8) % 251; labels = np.arange(160) % 4\n"
        f"    {body}\n    return images.astype(np.uint8), labels\n"
    )
    monkeypatch.delitem(sys.modules, "drifting", raising=False)
    result = fp.train(data="drifting:load", rounds=1, clients_count=4, output="run", **QUICK)
    called.cache_clear()
    with pytest.raises(fp.UserError, match=message) as caught:
        fp.train(resume=result.folder, rounds=2, progress=False)
    assert "data.root" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_is_written_into_the_folder_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = fp.open_run(run)
    subnet = opened.extract(opened.find(macs="1M", progress=False), progress=False)
    Path("link").symlink_to("run")
    before = sorted(Path().rglob("*"))
    for place in ("run/subnet", "run/checkpoints/mine", "link/a/b", run.absolute() / "x", "else/../run/y"):
        for write, name in ((subnet.save, place), (subnet.export, f"{place}.pt")):
            with pytest.raises(fp.UserError, match=r"lies in the run .*/run, whose folder holds its own") as caught:
                write(name)
            assert "\n" not in str(caught.value)
        outcome = run_main(search_subnet, capsys, "--run", run, "--flops-budget", "1M", "--output", place)
        assert "lies in the run" in check_refused(outcome, "search-subnet")
    for taken in ("run", ".", "run/config.yaml", "run/checkpoints"):
        with pytest.raises(fp.UserError, match="exists and is not an empty folder"):
            subnet.save(taken)
    assert sorted(Path().rglob("*")) == before
    assert subnet.save("run-subnet") == Path("run-subnet")


@pytest.mark.parametrize("in_memory", [False, True])
def test_whoever_comes_second_is_told_that_a_run_is_being_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, in_memory: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(160 * 64).reshape(160, 8, 8).astype(np.uint8)
    data = (pixels, np.arange(160) % 4) if in_memory else "digits"
    places = ("run", str(tmp_path / "run"), "new/deep")

    def second() -> None:
        with pytest.raises(fp.UserError, match=r"a run is being trained in .* already; wait for it, or choose") as told:
            fp.train(data=data, rounds=1, clients_count=4, output=places[turn], **QUICK)
        assert "\n" not in str(told.value)
        heard.append(str(told.value))

    def preparing(*given: Any) -> Any:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(PATIENCE)
        if failing:
            raise fp.UserError("mine")
        return new_run(*given)

    heard: list[str] = []
    turn, failing = 0, False
    monkeypatch.setattr(session, "new_run", preparing)
    fp.train(data=data, rounds=1, clients_count=4, output=places[0], callbacks=[lambda record: second()], **QUICK)
    assert len(heard) == 2
    # Where nobody trains any more it is a run like any other, and what fails leaves no folder that it made.
    with pytest.raises(fp.UserError, match="already holds a run"):
        fp.train(data=data, rounds=1, clients_count=4, output=places[1], **QUICK)
    turn, failing = 2, True
    with pytest.raises(fp.UserError, match="mine"):
        fp.train(data=data, rounds=1, clients_count=4, output=places[2], **QUICK)
    assert len(heard) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "run.images"][: 1 + in_memory]


def test_a_place_that_a_killed_process_had_reserved_is_free(tmp_path: Path) -> None:
    (tmp_path / ".run.new").touch()
    with reserved(tmp_path / "run"), pytest.raises(fp.UserError, match="is being trained"), reserved(tmp_path / "run"):
        pass
    with reserved(tmp_path / "run"):
        pass
    assert list(tmp_path.iterdir()) == []

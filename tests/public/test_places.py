"""Where the public API writes to and reads from: outputs of resumed runs, and functions that give the images."""

import sys
from pathlib import Path

import pytest
from helpers.commands import check_refused, run_main
from helpers.runs.quick import QUICK

import fedpareto as fp
from fedpareto.training.cli import main as train_supernet
from fedpareto.training.data.functions import called


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

"""The public face: names, arguments, data in memory, and runs that the command line goes on with."""

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.commands import run_main
from helpers.processes import ENVIRONMENT, PATIENCE
from helpers.repository import IMPORTED_FROM
from helpers.runs.quick import QUICK
from numpy.typing import NDArray
from torch.utils.data import Dataset, TensorDataset

import fedpareto as fp
from fedpareto.cache.cli import CacheOptions
from fedpareto.search.cli import main as search_subnet
from fedpareto.search.comparison.cli import CompareOptions
from fedpareto.search.profiling.cli import ProfileOptions
from fedpareto.supernet.common.terminal.console import on_screen, silence, stderr
from fedpareto.supernet.common.terminal.progress import SILENT
from fedpareto.training.cli import main as train_supernet
from fedpareto.training.data.digits import read_digits
from fedpareto.training.trackers.callbacks import FunctionTracker
from fedpareto.training.trackers.records import RoundRecord


def _arrays(count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    pictures, labels = read_digits()
    return np.rint(pictures[:count] * (255 / 16)).astype(np.uint8), labels[:count]


def _data(**others: Any) -> fp.ImageData:
    count = 240
    images, labels = _arrays(count + 40)
    given = {"clients": np.arange(count) % 4, "test": (images[count:], labels[count:])}
    return fp.ImageData(images[:count], labels[:count], **{**given, **others})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> fp.TrainingResult:
    """A run on arrays, with the client of each image."""
    folder = tmp_path_factory.mktemp("runs")
    return fp.train("mobilenet-tiny", data=_data(), rounds=2, output=folder / "mine", **QUICK)


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, fedpareto; print([n for n in ('numpy', 'torch', 'pymoo', 'matplotlib') if n in sys.modules])"
    environment = {**ENVIRONMENT, "PYTHONPATH": str(IMPORTED_FROM)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there_and_documented() -> None:
    assert fp.__version__ == metadata.version("fedpareto")
    assert sorted(fp.__all__) == fp.__all__ == dir(fp)
    for name in fp.__all__:
        value = getattr(fp, name)
        assert value.__name__ == name
        assert len((value.__doc__ or "").splitlines()[0]) > 10
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        fp.trian  # noqa: B018


@pytest.mark.parametrize(
    ("function", "options", "others"),
    [
        (fp.build_cache, CacheOptions, {"progress"}),
        (fp.compare, CompareOptions, {"progress"}),
        # The images are not read: the command names them for the one that it suggests.
        (fp.profile_device, ProfileOptions, {"progress"}),
    ],
)
def test_arguments_are_what_the_command_calls_them(
    function: Callable[..., object], options: type, others: set[str]
) -> None:
    wanted = {name: field.default for name, field in inspect.signature(options).parameters.items() if name != "data"}
    given = {name: field.default for name, field in inspect.signature(function).parameters.items()}
    assert given.keys() - others == wanted.keys()
    optional = {name: value for name, value in wanted.items() if value is not inspect.Parameter.empty}
    assert {name: given[name] for name in optional if name != "space"} == {
        name: value for name, value in optional.items() if name != "space"
    }


def test_arrays_are_trained_on_by_the_clients_they_belong_to(result: fp.TrainingResult) -> None:
    assert (result.finished, result.rounds, len(result.records)) == (True, 2, 2)
    split = json.loads((result.folder / "partition.json").read_text())
    images = 240
    assert sorted([*split["validation"], *(each for part in split["clients"] for each in part)]) == list(range(images))
    assert all(position % 4 == client for client, part in enumerate(split["clients"]) for position in part)
    assert result.accuracies
    assert all(0 <= share <= 1 for share in result.accuracies.values())


def test_the_command_line_resumes_and_searches_a_run_on_arrays(
    result: fp.TrainingResult, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_main(train_supernet, capsys, "--resume", result.folder, "--rounds", 3).code == 0
    found = run_main(
        search_subnet,
        capsys,
        "--run",
        result.folder,
        "--flops-budget",
        "1M",
        "--test",
        "--json",
        "--output",
        tmp_path / "s",
    )
    assert found.code == 0
    report = json.loads(found.out)
    assert 0 <= report["test_accuracy"] <= 1
    # And so does Python.
    answer = fp.open_run(result.folder).find(macs="1M", progress=False)
    assert answer.entry.macs == report["macs"]


def test_a_subnet_of_a_run_is_measured_saved_exported_and_loaded(result: fp.TrainingResult, tmp_path: Path) -> None:
    run = fp.open_run(result.folder)
    answer = run.find(macs=2_000_000, progress=False)
    assert (answer.certified, answer.gap) == (True, 0.0)
    subnet = run.extract(answer, progress=False)
    assert subnet.accuracy() == subnet.info.report["validation_accuracy"]
    images = torch.rand(2, 3, answer.entry.architecture.resolution, answer.entry.architecture.resolution)
    loaded = fp.load_subnet(subnet.save(tmp_path / "subnet"))
    assert torch.allclose(loaded(images), subnet.network(images), atol=1e-5)
    # The same architecture, given as such, is the same subnet.
    again = run.extract(answer.entry.architecture, progress=False)
    assert torch.allclose(again.network(images), loaded(images), atol=1e-5)
    report = subnet.export(tmp_path / "subnet.pt", progress=False)
    assert (report["format"], report["top1_agreement"]) == ("torchscript", 1.0)
    with pytest.raises(fp.UserError, match=r"allowed suffixes: \.onnx"):
        subnet.export(tmp_path / "subnet.tflite")


@pytest.mark.parametrize("form", ["pair", "dataset", "tensor"])
def test_images_in_any_form_make_the_same_run(form: str, tmp_path: Path) -> None:
    images, labels = _arrays(120)
    tensor = torch.from_numpy(images)[:, None]
    forms: dict[str, object] = {
        "pair": (images, labels),
        "dataset": TensorDataset(tensor, torch.from_numpy(labels)),
        "tensor": fp.ImageData(tensor, torch.from_numpy(labels)),
    }
    runs = {}
    for name in {"pair", form}:
        runs[name] = fp.train(data=forms[name], rounds=1, clients_count=3, output=tmp_path / name, **QUICK)
    one, other = (next(run.folder.glob("checkpoints/*/supernet.safetensors")) for run in (runs["pair"], runs[form]))
    assert one.read_bytes() == other.read_bytes()


def test_a_function_of_a_module_is_called_whenever_the_images_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own_data.py").write_text(
        "import numpy as np\n"
        "import fedpareto as fp\n"
        "from fedpareto.training.data.digits import read_digits\n"
        "def load(root):\n"
        "    pictures, labels = read_digits()\n"
        "    images = (pictures[:160] / 16).astype('float32')\n"
        "    return fp.ImageData(images, labels[:160], clients=np.arange(160) // 40, test=(images, labels[:160]))\n"
    )
    run = fp.train(data="my_own_data:load", rounds=1, output="run", **QUICK)
    # Its clients are those that the images belong to.
    assert len(json.loads((run.folder / "partition.json").read_text())["clients"]) == 4
    assert not list(tmp_path.glob("run.images"))
    assert run_main(train_supernet, capsys, "--resume", "run", "--rounds", 2).code == 0
    subnet = fp.open_run("run").extract(fp.open_run("run").find(macs="1M", progress=False), progress=False)
    assert 0 <= subnet.accuracy("test") <= 1


def test_callbacks_are_told_of_every_round_and_memory_is_as_good_as_files(tmp_path: Path) -> None:
    space = fp.load_space("mobilenet-tiny", classes=10)
    cache = fp.build_cache(space, entries=4, solver="exact", output=tmp_path / "cache.jsonl", progress=False)
    told: list[RoundRecord] = []
    given: dict[str, Any] = {"data": "digits", "rounds": 1, "clients_count": 4, **QUICK}
    first = fp.train(space, cache=cache, output=tmp_path / "memory", callbacks=[told.append], **given)
    fp.train("mobilenet-tiny", cache=tmp_path / "cache.jsonl", output=tmp_path / "files", **given)
    assert [record.round for record in told] == [1]
    one, other = (next((tmp_path / name).glob("checkpoints/*/supernet.safetensors")) for name in ("memory", "files"))
    assert one.read_bytes() == other.read_bytes()
    assert f"{first!r}".startswith(f"TrainingResult({tmp_path / 'memory'}: 1 round; validation accuracy ")


def test_values_print_themselves_in_a_notebook(result: fp.TrainingResult) -> None:
    answer = fp.open_run(result.folder).find(macs="1M", progress=False)
    cache = fp.build_cache("mobilenet-tiny", entries=3, solver="exact", progress=False)
    for value in (result, answer, cache, fp.frontier("mobilenet-tiny", progress=False)):
        page = value._repr_html_()
        assert page.count("<svg") == page.count("</svg>") == 1
        assert len(repr(value)) < 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"roundz": 3}, r"there is no setting roundz; did you mean rounds"),
        ({"clients": {"per_rond": 3}}, r"per_rond"),
        ({"rounds": "many"}, r"rounds"),
        ({"rounds": 0}, r"rounds is 0; it must be at least 1"),
        ({"data": 7}, r"data is of type int; give"),
        ({"data": "nowhere_to_be:found"}, r"cannot import nowhere_to_be"),
        ({"data": "json:loadz"}, r"the module json has no function loadz"),
        ({"data": "json:"}, r"a function is named module:function"),
        ({"callbacks": [3]}, r"a callback is of type int"),
        ({"resume": "nowhere", "data": "digits"}, r"resume names a run"),
        ({"resume": "nowhere"}, r"nowhere holds no run"),
        ({"data": "digits", "partition_scheme": "natural"}, r"the data do not say whose each image is"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(fp.UserError, match=message) as caught:
        fp.train(**{"rounds": 1, "output": None if "resume" in arguments else "run", **arguments}, progress=False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"clients": np.arange(12) % 2}, None),
        ({"clients": [0, 1]}, r"clients have shape \(2,\)"),
        ({"clients": np.full(12, -1)}, r"clients hold -1"),
        ({"clients": np.zeros(12)}, r"clients are float64"),
        ({"classes": ["a"]}, r"labels go up to 3"),
        ({"labels": np.zeros((12, 2), dtype=int)}, r"labels have shape"),
        ({"images": np.zeros((12, 3))}, r"images have shape \(12, 3\)"),
        ({"images": np.full((12, 4, 4), np.nan)}, r"images: its values go from nan"),
        ({"test": np.zeros(3)}, r"test must be a pair"),
        ({"test": (np.zeros((1, 4, 4, 3), dtype=np.uint8), [0])}, r"channels of the splits are \[1, 3\]; their images"),
    ],
)
def test_image_data_that_mean_nothing_are_refused(given: dict[str, Any], message: str | None) -> None:
    values = {"images": np.zeros((12, 4, 4), dtype=np.uint8), "labels": np.arange(12) % 4, **given}
    images, labels = values.pop("images"), values.pop("labels")
    if message is None:
        assert fp.ImageData(images, labels, **values).client_count == 2
        return
    with pytest.raises(fp.UserError, match=message):
        fp.ImageData(images, labels, **values)


def test_splits_are_scaled_alike_though_one_lacks_the_brightest_pixel() -> None:
    bright, dark = np.zeros((4, 2, 2)), np.zeros((4, 2, 2))
    bright[0], dark[0], bright[1], dark[1] = 16.0, 13.0, 8.0, 8.0
    data = fp.ImageData(bright, [0, 1, 0, 1], test=(dark, [0, 1, 0, 1]))
    assert data.test is not None
    assert data.train.pixels[1].max() == data.test.pixels[1].max() == 128
    with pytest.raises(fp.UserError, match="give them as one type"):
        fp.ImageData(bright, [0, 1, 0, 1], test=(dark.astype(np.uint8), [0, 1, 0, 1]))


def test_a_run_without_test_images_says_so(tmp_path: Path) -> None:
    images, labels = _arrays(120)
    run = fp.train(data=(images, labels), rounds=1, clients_count=3, output=tmp_path / "run", **QUICK)
    subnet = fp.open_run(run.folder).extract(fp.open_run(run.folder).find(macs="1M", progress=False), progress=False)
    with pytest.raises(fp.UserError, match="holds no test images"):
        subnet.accuracy("test")


def test_a_client_with_less_than_a_batch_trains_on_it_and_a_run_describes_its_clients(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clients = np.arange(240) % 2
    clients[:6], clients[6] = 2, 3
    settings = {**QUICK, "clients_per_round": 3, "progress": True}
    run = fp.train(data=_data(clients=clients), rounds=1, output=tmp_path / "run", **settings)
    assert run.finished
    said = " ".join(capsys.readouterr().err.split())
    assert "left out: 1 of 4 clients with fewer images to train with than 2 (e.g. 3 with " in said
    assert "3 clients of the data; " in said
    assert "1 with less than a batch of 8, who train on it" in said
    table = (run.folder / "federation.csv").read_text().splitlines()
    assert table[0].startswith("client,name,images,classes,class 0,")
    assert [row.split(",")[:2] for row in table[1:]] == [["0", "0"], ["1", "1"], ["2", "2"]]
    assert (run.folder / "federation.png").read_bytes()[:4] == b"\x89PNG"


def test_limits_of_a_device_are_read_as_the_command_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    limits = {"macs": "2M", "params": 150_000, "size": "500kB", "memory": "60kB"}
    answer = fp.find_subnet("mobilenet-tiny", **limits, progress=False)  # type: ignore[arg-type]
    options = ("--flops-budget", "2M", "--params-budget", "150000", "--size-budget", "500kB", "--memory-budget", "60kB")
    found = run_main(search_subnet, capsys, "--space", "mobilenet-tiny", *options, "--json")
    assert json.loads(found.out)["architecture"] == answer.entry.architecture.to_json()
    for mistake, message in (
        ({}, "give a limit"),
        ({"latency": "5ms"}, "latency is '5ms'"),
        ({"macs": "many"}, "many"),
    ):
        with pytest.raises(fp.UserError, match=message):
            fp.find_subnet("mobilenet-tiny", **mistake, progress=False)  # type: ignore[arg-type]


def test_progress_is_silent_when_it_is_not_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fp.train(data="digits", rounds=1, clients_count=4, output=tmp_path / "run", **QUICK)
    assert capfd.readouterr() == ("", "")
    assert SILENT.report("nothing", 0, 1) is None  # type: ignore[func-returns-value]


def test_ctrl_c_stops_at_the_rounds_edge_and_python_goes_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    interrupted = fp.train(
        data="digits",
        rounds=3,
        clients_count=4,
        output=tmp_path / "run",
        callbacks=[lambda record: os.kill(os.getpid(), signal.SIGINT) if record.round == 1 else None],
        **{**QUICK, "progress": True},
    )
    assert (interrupted.finished, interrupted.rounds) == (False, 1)
    assert signal.getsignal(signal.SIGINT) is before
    assert "interrupt again to stop at once" in capfd.readouterr().err
    whole = fp.train(data="digits", rounds=3, clients_count=4, output=tmp_path / "whole", **QUICK)
    again = fp.train(resume=interrupted.folder, progress=False)
    one, other = (sorted(run.folder.glob("checkpoints/*/supernet.safetensors"))[-1] for run in (whole, again))
    assert one.read_bytes() == other.read_bytes()


def test_a_notebook_sees_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not on_screen()
    monkeypatch.setattr(stderr, "is_jupyter", True)
    assert on_screen()


#: The functions as somebody calls them who has no type checker.
_LOOSE: Any = fp


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _LOOSE.load_space("mobilenet-tiny", classes="3"), "classes is '3'; it must be a whole number or None"),
        (
            lambda: _LOOSE.load_space("mobilenet-tiny", classes=True),
            "classes is True; it must be a whole number or None",
        ),
        (lambda: _LOOSE.build_cache("mobilenet-tiny", solver="x"), "solver is 'x'; it must be 'nsga2' or 'exact'"),
        (lambda: _LOOSE.build_cache("mobilenet-tiny", entries=2.5), "entries is 2.5; it must be a whole number"),
        (lambda: _LOOSE.find_subnet("mobilenet-tiny", macs="2M", precision="bogus"), "precision is 'bogus'"),
        (lambda: _LOOSE.find_subnet("mobilenet-tiny", macs="2M", batch=1.5), "batch is 1.5; it must be a whole number"),
        (lambda: _LOOSE.score("mobilenet-tiny", 5), "architectures is 5"),
        (
            lambda: _LOOSE.build_network("mobilenet-tiny", {}),
            "space is 'mobilenet-tiny'; it must be of type SearchSpace",
        ),
        (lambda: _LOOSE.load_subnet(None), "folder is None; it must be text or a path"),
        (lambda: _LOOSE.open_run("nowhere", checkpoint="x"), "checkpoint is 'x'; it must be 'best' or 'newest'"),
        (lambda: _LOOSE.profile_device("mobilenet-tiny", output="t", runtime="xtorch"), "runtime is 'xtorch'"),
        (
            lambda: _LOOSE.frontier("mobilenet-tiny", progress=False).best_within("2M"),
            "macs is '2M'; it must be a number",
        ),
        (lambda: _LOOSE.train(callbacks=print), "callbacks is"),
        (lambda: _LOOSE.train(execution=None), "execution is a group of settings; give a mapping"),
        (lambda: _LOOSE.train(clients_per_round=2, clients={"per_round": 1}), "clients.per_round is given twice"),
        (lambda: _LOOSE.train(callbacks=[type("Half", (), {"round_done": print})()]), "has no method client_done"),
        (lambda: _LOOSE.register_sampler("a b")(print), "a client sampler is called 'a b'"),
        (lambda: _LOOSE.compare(3), "config is 3; it must be text or a path"),
    ],
)
def test_a_mistaken_argument_is_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(fp.UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    given = {**QUICK, "clients_per_round": np.int64(2), "client_lr": np.float64(0.05)}
    assert fp.train(data="digits", rounds=np.int64(1), clients_count=4, output=tmp_path / "run", **given).rounds == 1


def test_a_cache_of_other_classes_is_refused_by_what_it_is(tmp_path: Path) -> None:
    cache = fp.build_cache("mobilenet-tiny", entries=3, solver="exact", progress=False)
    with pytest.raises(fp.UserError, match="of other classes than its 3; build it with"):
        fp.train(fp.load_space("mobilenet-tiny", classes=3), cache=cache, output=tmp_path / "run", rounds=1, **QUICK)


def test_a_run_is_where_it_began_whoever_changes_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    away = [lambda record: os.chdir(tmp_path / "other")]
    run = fp.train(data="digits", rounds=2, clients_count=4, output="run", callbacks=away, **QUICK)
    assert run.folder == tmp_path / "run"
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2
    assert list((tmp_path / "other").iterdir()) == []
    assert fp.open_run(run.folder).find(macs="1M", progress=False).certified


def test_a_tracker_that_fails_to_close_leaves_no_other_open(tmp_path: Path) -> None:
    class Failing(FunctionTracker):
        def close(self) -> None:
            raise RuntimeError("mine")

    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="mine"):
        fp.train(
            data="digits", rounds=1, clients_count=4, output=tmp_path / "run", callbacks=[Failing(print)],
            **{**QUICK, "progress": True},
        )  # fmt: skip
    for thread in set(threading.enumerate()) - before:
        # One that shows progress would go on for as long as the process does.
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_silence_ends_with_the_last_of_several_blocks() -> None:
    one, other = silence(), silence()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert stderr.quiet
    other.__exit__(None, None, None)
    assert not stderr.quiet


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((np.zeros((4, 4)), 0.7), "the label 0.7"),
        ((np.zeros((4, 4)), "cat"), "the label 'cat'"),
        (3, "is no \\(image, label\\) pair"),
        (([[1, 2], [3]], 0), "cannot be read as one array"),
    ],
)
def test_a_data_set_of_odd_items_is_refused(item: object, message: str) -> None:
    class Odd(Dataset[object]):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> object:
            return item

    with pytest.raises(fp.UserError, match=message):
        fp.train(data=Odd(), rounds=1, progress=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": [0, 1, 2, 2**40]}, "labels hold 1099511627776"),
        ({"labels": [0, 1, 2, 9]}, "labels go up to 9, and there are 4 images"),
        ({"clients": [0, 1, 2, 7]}, "clients go up to 7"),
        ({"classes": {"a", "b"}}, "classes are of type set"),
        ({"classes": ["a", "a"]}, "every name may stand there once"),
        ({"images": [[1, 2], [3]]}, "images cannot be read as one array"),
    ],
)
def test_numbers_that_would_fill_the_memory_are_refused(given: dict[str, Any], message: str) -> None:
    values = {"images": np.zeros((4, 4, 4), dtype=np.uint8), "labels": [0, 1, 0, 1], **given}
    with pytest.raises(fp.UserError, match=message):
        fp.ImageData(values.pop("images"), values.pop("labels"), **values)

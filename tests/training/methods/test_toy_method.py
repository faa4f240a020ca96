"""A method that nothing in the repository knows: trained, resumed, compared and searched like those that it has."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.commands import Outcome, check_refused, run_main
from helpers.distributions import write_distribution
from helpers.repository import ROOT
from helpers.runs.federation import arguments_of, micro_config, read_metrics
from helpers.runs.studies import tiny_study, write_study

import fedpareto
from fedpareto.search.cli import main as search_subnet
from fedpareto.search.comparison.cli import main as compare_methods
from fedpareto.supernet.common.errors import UserError
from fedpareto.training.aggregation.round_results import RoundPlan, RoundResults
from fedpareto.training.cli import main as train_supernet
from fedpareto.training.config.methods import METHODS, MethodSpec, ReadWhen, register_method
from fedpareto.training.config.methods.config_type import config_type
from fedpareto.training.config.rules.changes import changed_fields
from fedpareto.training.config.rules.unused_settings import read_only, refuse_unread, settings_of
from fedpareto.training.config.run import RunConfig, config_to_mapping
from fedpareto.training.methods.curriculum import runnable_entries
from fedpareto.training.methods.plans import WholeSupernet, equal_plan
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.methods.sampling import drawn_clients
from fedpareto.training.runs.folder import read_run_config
from fedpareto.training.runs.state import RunState


@dataclasses.dataclass(frozen=True)
class ToySettings:
    """Networks in turn.

    Attributes:
        stride: entries of the cache from one round to the next.
        backwards: the largest comes first.
        late: entries that are left out at first.
        first: file with the number of the first entry.
    """

    stride: int = 1
    backwards: bool = False
    late: int = 0
    first: str | None = None

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise UserError(f"toy.stride is {self.stride}; it must be at least 1")


class Toy(WholeSupernet):
    """Every client of a round trains the same network: the next one of the cache, which the run's state remembers."""

    def __init__(self, context: MethodContext) -> None:
        super().__init__(context)
        self._context, self._settings = context, context.settings(ToySettings)
        runnable_entries(context.entries, context.clients, context.config.client.batch)

    @property
    def weight_by_examples(self) -> bool:
        return self._context.config.server.weight_by_examples

    def assign(self, state: RunState, available: Sequence[int]) -> RoundPlan:
        entries, turn = self._context.entries, self._turn(state)
        place = -1 - turn if self._settings.backwards else turn
        drawn = drawn_clients(self._context.config, state, available)
        return equal_plan(self._context.config, state, dict.fromkeys(drawn, entries[place % len(entries)]))

    def after_round(self, state: RunState, answers: RoundResults) -> RunState:
        return dataclasses.replace(state, method={"turn": self._turn(state) + self._settings.stride})

    def _turn(self, state: RunState) -> int:
        first = 0 if self._settings.first is None else int(Path(self._settings.first).read_text())
        return int(state.method.get("turn", first + self._settings.late))

    def files(self, state: RunState) -> Mapping[str, str]:
        return {"toy.json": json.dumps(state.method)}


def _check(config: RunConfig) -> None:
    if config.clients.per_round == 1:
        raise UserError("method toy is for company; use more than one client a round")


TOY = MethodSpec(
    name="toy",
    summary="the cache's networks in turn, 100% of a round alike",
    factory=Toy,
    settings=ToySettings,
    check=_check,
    defaults={"client.logit_adjustment": 0.25, "data.flip": True},
    also_reads=("server.weight_by_examples",),
    read_when={"late": ReadWhen(lambda config: config.rounds > 2, "with more than 2 rounds")},
    files={"first": ".txt"},
    length=lambda config, scheduled: f"{scheduled} in turn",
    report=lambda folder: print(f"toy ended with {(folder / 'toy.json').read_text()}"),
)


@pytest.fixture
def toy() -> Iterator[MethodSpec]:
    register_method(TOY)
    yield TOY
    METHODS.remove("toy")


def _settings(config: RunConfig) -> ToySettings:
    # What is registered is no part of the static type.
    settings = config.toy  # type: ignore[attr-defined]
    assert isinstance(settings, ToySettings)
    return settings


def _config(**changes: Any) -> RunConfig:
    return config_type()(**{"method": "toy", **changes})


def _train(capsys: pytest.CaptureFixture[str], folder: Path, *options: object) -> Outcome:
    return run_main(train_supernet, capsys, *arguments_of(micro_config(folder)), "--method", "toy", *options)


def _weights(run: Path) -> bytes:
    return (run / "checkpoints" / "round-000003" / "supernet.safetensors").read_bytes()


def test_help_has_its_options_with_their_documentation(toy: MethodSpec, capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(run_main(train_supernet, capsys, "--help").out.split())
    assert f"then trained for the rounds), toy ({toy.summary}). (type: Literal['fedpareto'," in told
    first = "--toy.stride STRIDE entries of the cache from one round to the next. (type: int, default: 1)"
    assert f"the method toy: {first} --toy.backwards [{{true,false}}] the largest comes first." in told


@pytest.mark.slow
def test_it_trains_reports_and_is_read_back(
    toy: MethodSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "given.txt").write_text("1")
    options = ("--toy.stride", 2, "--toy.backwards", "--toy.first", tmp_path / "given.txt")
    outcome = _train(capsys, tmp_path, *options, "--server.weight-by-examples")
    assert outcome.code == 0, outcome.err
    assert "training: toy: micro on digits" in outcome.err
    assert "3 rounds in turn of 3 from" in outcome.err
    assert 'toy ended with {"turn": 7}' in outcome.out
    run, copy = tmp_path / "run", str(tmp_path / "run" / "inputs" / "toy-first.txt")
    written = yaml.safe_load((run / "config.yaml").read_text())["toy"]
    assert written == {"stride": 2, "backwards": True, "late": 0, "first": copy}
    assert Path(copy).read_text() == "1"
    config = read_run_config(run)
    assert _settings(config) == ToySettings(2, True, first=copy)
    assert (config.client.logit_adjustment, config.data.flip) == (0.25, True)
    macs = [[client["macs"] for client in record["clients"]] for record in read_metrics(run)]
    entries = sorted({macs[0][0], macs[1][0], macs[2][0]}, reverse=True)
    assert [set(each) for each in macs] == [{entry} for entry in entries]


@pytest.mark.slow
def test_python_trains_it_like_the_command(toy: MethodSpec, tmp_path: Path) -> None:
    _, path = arguments_of(micro_config(tmp_path))
    result = fedpareto.train(config=path, method=toy.name, toy_stride=2, progress=False)
    assert result.finished
    assert _settings(read_run_config(result.folder)) == ToySettings(2)
    with pytest.raises(UserError, match="there is no setting toy_strid; did you mean toy_stride"):
        fedpareto.train(config=path, method=toy.name, toy_strid=2, output=tmp_path / "other", progress=False)


@pytest.mark.slow
def test_a_run_that_is_resumed_ends_with_the_bytes_of_one_that_was_not_interrupted(
    toy: MethodSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(capsys, tmp_path, "--toy.stride", 2, "--checkpoint.keep", 9).code == 0
    run = tmp_path / "run"
    for number in (0, 1, 2):
        again = Path(shutil.copytree(run, tmp_path / f"after-{number}"))
        for later in range(number + 1, 4):
            shutil.rmtree(again / "checkpoints" / f"round-{later:06d}")
        assert run_main(train_supernet, capsys, "--resume", again).code == 0
        assert _weights(again) == _weights(run)
        assert (again / "toy.json").read_text() == '{"turn": 6}'


@pytest.mark.slow
def test_a_resumed_run_keeps_its_settings(toy: MethodSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(capsys, tmp_path, "--toy.stride", 2).code == 0
    line = check_refused(
        run_main(train_supernet, capsys, "--resume", tmp_path / "run", "--toy.stride", 3, "--rounds", 4),
        "train-supernet",
    )
    assert f"toy.stride is 3, but {tmp_path / 'run'} was trained with 2" in line
    outcome = run_main(train_supernet, capsys, "--resume", tmp_path / "run", "--rounds", 4)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--toy.stride", "0"), "toy.stride is 0; it must be at least 1"),
        (("--toy.stride", "much"), "--toy.stride is much; it must be a whole number"),
        (("--toy.strid", "2"), "there is no option --toy.strid; did you mean --toy.stride?"),
        (("--clients.per-round", "1"), "method toy is for company"),
        (("--cotrain.distillation", "0.1"), "cotrain.distillation is 0.1, which method toy would ignore here"),
        (("--toy.late", "1", "--rounds", "2"), "(it is read only by method toy with more than 2 rounds)"),
        (
            ("--method", "cotrain", "--toy.stride", "2"),
            "toy.stride is 2, which method cotrain would ignore here (it is read only by method toy)",
        ),
        (("--privacy.clip", "1"), "method toy does not go with privacy.clip; private are: fedpareto, deepfednas"),
        (("--server.largest-weight", "0.5"), "(it is read only by methods deepfednas and superfednas with more"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    toy: MethodSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], message: str
) -> None:
    outcome = _train(capsys, tmp_path, *options)
    assert message in check_refused(outcome, "train-supernet")


@pytest.mark.slow
def test_the_search_takes_a_subnet_out_of_its_run(
    toy: MethodSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(capsys, tmp_path).code == 0
    options = ("--flops-budget", "60M", "--output", tmp_path / "subnet")
    outcome = run_main(search_subnet, capsys, "--run", tmp_path / "run", *options)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "subnet" / "subnet.safetensors").is_file()


@pytest.mark.slow
def test_a_run_whose_method_is_not_installed_says_so_and_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_method(TOY)
    try:
        assert _train(capsys, tmp_path).code == 0
        other = tmp_path / "other"
        assert _train(capsys, tmp_path, "--method", "fedpareto", "--output", other).code == 0
        wanted = write_study(tmp_path, tiny_study(tmp_path, methods={"toy": {}, "cotrain": {}}))
    finally:
        METHODS.remove("toy")
    valid = "cotrain, decnas, deepfednas, dfnas, fedavg, fedpareto, superfednas"
    told = f"unknown method 'toy'; valid: {valid}; correct the name, or install the package that brings it"
    run = tmp_path / "run"
    for main, prog, options in (
        (train_supernet, "train-supernet", ("--resume", run)),
        (train_supernet, "train-supernet", ("--config", run / "config.yaml", "--output", tmp_path / "new")),
        (search_subnet, "search-subnet", ("--run", run, "--flops-budget", "60M", "--output", tmp_path / "subnet")),
    ):
        line = check_refused(run_main(main, capsys, *options), prog)
        assert f"{run / 'config.yaml'}: {told}" in line
    line = check_refused(run_main(compare_methods, capsys, "--config", wanted), "compare-methods")
    assert "methods.toy: did you mean" in line or "methods.toy: say which method it is" in line
    # Who never had it is asked nothing of it.
    assert run_main(train_supernet, capsys, "--resume", other, "--rounds", 4).code == 0


def test_settings_of_others_are_written_where_they_mean_something(toy: MethodSpec) -> None:
    config = _config(method="cotrain")
    assert "toy" not in config_to_mapping(config)
    assert settings_of(config)["toy.stride"] == 1
    given = _config(method="cotrain", toy=ToySettings(5))
    assert config_to_mapping(given)["toy"]["stride"] == 5
    with pytest.raises(UserError, match=r"toy\.stride is 5, which method cotrain would ignore"):
        refuse_unread(given)
    assert read_only(given) == config
    changes = changed_fields(config_to_mapping(config), config_to_mapping(given))
    assert changes == [("toy.stride", 1, 5)]


def test_a_configuration_without_its_settings_is_refused(toy: MethodSpec) -> None:
    with pytest.raises(UserError, match=r"a RunConfig has no settings of method toy; make it by config_type\(\)"):
        RunConfig(method="toy")
    assert isinstance(_config(), RunConfig)
    assert _settings(_config()) == ToySettings()


def test_without_other_methods_a_configuration_is_what_it_always_was() -> None:
    assert config_type() is RunConfig


@dataclasses.dataclass(frozen=True)
class _Lacking:
    needed: int


@dataclasses.dataclass
class _Mutable:
    free: int = 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cotrain"}, "there is another method 'cotrain'"),
        ({"name": "client"}, "a method is called 'client', as is an option of train-supernet"),
        ({"name": "spec"}, "a method is called 'spec', as is an option of train-supernet"),
        ({"name": "rounds"}, "a method is called 'rounds', as is an option"),
        ({"name": "resume"}, "a method is called 'resume', as is an option"),
        ({"name": "My-Method"}, "its name must be small letters, digits and _"),
        ({"summary": ""}, "method other has no summary"),
        ({"settings": _Lacking}, r"the setting other\.needed has no default"),
        ({"settings": _Mutable}, "they must be a frozen dataclass"),
        ({"settings": dict}, "they must be a frozen dataclass"),
        ({"files": {"weights": ".bin"}}, "method other has no setting 'weights'"),
        ({"also_reads": ("server.speed",)}, r"method other reads 'server\.speed'"),
    ],
)
def test_a_method_that_cannot_be_is_not_registered(fields: dict[str, Any], message: str) -> None:
    before = METHODS.names()
    with pytest.raises(UserError, match=message):
        register_method(MethodSpec(**{"name": "other", "summary": "another", "factory": Toy, **fields}))
    assert METHODS.names() == before


def test_a_factory_is_registered_by_decorating_it() -> None:
    @register_method("decorated", ToySettings, private=True)
    def factory(context: MethodContext) -> Toy:
        """Networks in turn.

        And more of it.
        """
        return Toy(context)

    try:
        spec = METHODS.get("decorated")
        assert (spec.summary, spec.settings, spec.factory) == ("Networks in turn", ToySettings, factory)
        assert spec.private
        # Its module may be imported under two names, or reloaded; the very same is no other.
        register_method(spec)
        with pytest.raises(UserError, match="there is another method 'decorated'"):
            register_method(dataclasses.replace(spec))
    finally:
        METHODS.remove("decorated")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a distribution that has the method, on the path of other processes."""
    module = f"from {Path(__file__).stem} import TOY\n"
    folder = write_distribution(
        tmp_path / "site", "toy-method", {"fedpareto.methods": {"toy": "toy_module:TOY"}}, {"toy_module.py": module}
    )
    paths = (folder, Path(__file__).parent, ROOT / "tests", ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    return folder


def _elsewhere(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Train in a process of its own."""
    program = "from fedpareto.training.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_an_installed_method_is_found_by_its_entry_point(tmp_path: Path, toy: MethodSpec) -> None:
    arguments = arguments_of(micro_config(tmp_path))
    done = _elsewhere(*arguments, "--method", "toy", "--toy.stride", 2)
    assert done.returncode == 0, done.stderr
    assert 'toy ended with {"turn": 6}' in done.stdout
    assert _settings(read_run_config(tmp_path / "run")) == ToySettings(2)


@pytest.mark.usefixtures("installed", "toy")
@pytest.mark.slow
def test_a_study_compares_it_with_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = {"toy": {}, "back": {"method": "toy", "toy": {"backwards": True}}, "cotrain": {}}
    path = write_study(tmp_path, tiny_study(tmp_path, methods=methods, seeds=[0]))
    outcome = run_main(compare_methods, capsys, "--config", path, "--output", tmp_path / "study")
    assert outcome.code == 0, outcome.err
    table = (tmp_path / "study" / "table.csv").read_text()
    assert all(f"\n{label}," in table for label in methods)


_BROKEN = {
    "raises": ("raise RuntimeError('no luck\\ntoday')\n", "RuntimeError: no luck today"),
    "lacks": ("", "AttributeError: module 'broken' has no attribute 'TOY'"),
    "imports": ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
    "other": ("TOY = 3\n", "it is 3, and must be the MethodSpec of toy"),
    "idle": ("def TOY(): pass\n", "it registers no method 'toy'"),
}


@pytest.mark.parametrize(("module", "reason"), _BROKEN.values(), ids=_BROKEN)
def test_one_that_cannot_be_loaded_is_told_of_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, reason: str
) -> None:
    references = {"fedpareto.methods": {"toy": "broken:TOY"}}
    folder = write_distribution(tmp_path, "toy-broken", references, {"broken.py": module})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (folder, ROOT))))
    done = _elsewhere("--help")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert "the method 'toy' of toy-broken 1.0 cannot be loaded (" in done.stderr
    assert reason in done.stderr
    (tmp_path / "run.yaml").write_text("method: toy\n")
    done = _elsewhere("--config", tmp_path / "run.yaml")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith("train-supernet: error: ")
    assert "toy-broken 1.0" in last


def test_of_two_packages_with_one_name_neither_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        references = {"fedpareto.methods": {"toy": f"{name}:TOY", "fedavg": f"{name}:TOY"}}
        write_distribution(tmp_path, f"toy-{name}", references, {f"{name}.py": ""})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (tmp_path, ROOT))))
    (tmp_path / "run.yaml").write_text("method: toy\n")
    done = _elsewhere("--config", tmp_path / "run.yaml")
    assert done.returncode == 2
    assert "two packages have a method 'toy': toy-" in done.stderr
    assert "there is another method 'fedavg'; that of toy-one 1.0 is left out" in done.stderr
    assert "Traceback" not in done.stderr

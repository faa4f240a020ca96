"""Direct federated search as a method: what is averaged, settled, sent, kept and found."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers.runs.federation import MICRO, finished_run, read_metrics
from helpers.runs.flower import LocalLink, edited, flower_config, hurry, only, trained
from helpers.runs.simulation import (
    largest,
    micro_entries,
    recorder,
    same_bytes,
    short_config,
    simulated_run,
    smallest,
    spoiled_run,
    train_run,
    unspoiled,
)

from fedpareto.search.cli import main as search_main
from fedpareto.supernet.architecture import architecture_from_json, architecture_from_text
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.networks.weights import views
from fedpareto.supernet.slices import tensor_shapes
from fedpareto.training.clients.capabilities import Capability
from fedpareto.training.clients.paths import paths_through
from fedpareto.training.config.clients import ClientsConfig
from fedpareto.training.config.evaluation import CheckpointConfig
from fedpareto.training.config.methods import DfnasConfig
from fedpareto.training.config.privacy import PrivacyConfig
from fedpareto.training.config.run import RunConfig
from fedpareto.training.config.server import ServerConfig
from fedpareto.training.engines.protocol import EngineError
from fedpareto.training.execution.profile import Profile
from fedpareto.training.local_objective import PathSampling, Standard
from fedpareto.training.messages import Update
from fedpareto.training.methods.dfnas.decisions import Decisions, decisions_from_json, mean_of, undecided
from fedpareto.training.methods.dfnas.method import Dfnas, dfnas
from fedpareto.training.methods.protocol import MethodContext
from fedpareto.training.rounds.loop import train
from fedpareto.training.runs.checkpoint import load_checkpoint, newest_checkpoint
from fedpareto.training.runs.state import Counts, RunState

_PATHS = paths_through(MICRO, largest())

#: Logits learn so fast that slots are settled within a few rounds.
_FAST = DfnasConfig(lr=0.2, gap=0.15)

_FRESH = RunState(round=0, counts=Counts.zero(5), trained=())


def _config(settings: DfnasConfig = _FAST, **changes: Any) -> RunConfig:
    return short_config(method="dfnas", dfnas=settings, **changes)


def _ground(config: RunConfig, *clients: Capability) -> MethodContext:
    return MethodContext(config, MICRO, micro_entries(), clients or [Capability()] * config.clients.count)


def _state(decisions: dict[str, Decisions], start: Any = None, **fields: Any) -> RunState:
    kept = {owner: search.to_json() for owner, search in decisions.items()}
    method = {"start": (start or largest()).to_json(), "decisions": kept}
    return RunState(round=1, counts=Counts.zero(5), trained=(), method=method, **fields)


def _decisions(state: RunState, owner: str = "everyone") -> Decisions:
    return decisions_from_json(state.method["decisions"][owner])


def _settled(*choices: int | None) -> Decisions:
    return Decisions(undecided(_PATHS).logits, choices)


# The plan of a round.


def test_the_first_round_sends_the_whole_supernet_with_even_logits() -> None:
    plan = dfnas(_ground(_config())).assign(_FRESH, range(5))
    assert {entry.architecture for entry in plan.assigned.values()} == {largest()}
    assert len(plan.assigned) == 3
    assert set(plan.objectives.values()) == {PathSampling(undecided(_PATHS).logits, 0.2)}
    assert set(plan.weights.values()) == {1.0}


def test_slices_shrink_to_what_is_open() -> None:
    method = dfnas(_ground(_config()))
    search = _settled(0, 4, None, None)
    plan = method.assign(_state({"everyone": search}), range(5))
    (hull,) = {entry.architecture for entry in plan.assigned.values()}
    assert hull == search.hull(_PATHS)
    assert len(tensor_shapes(MICRO, hull)) < len(tensor_shapes(MICRO, largest()))
    (objective,) = set(plan.objectives.values())
    assert isinstance(objective, PathSampling)
    assert objective.logits == (None, (0.0,) * 4, (0.0,) * 5)


def test_a_search_that_is_over_trains_its_network() -> None:
    plan = dfnas(_ground(_config())).assign(_state({"everyone": _settled(1, 4, 2, 0)}), range(5))
    assert set(plan.objectives.values()) == {Standard()}
    assert {entry.architecture for entry in plan.assigned.values()} == {_PATHS.network((1, 4, 2, 0))}


def test_the_penalty_is_a_share_of_the_first_networks_macs() -> None:
    settings = DfnasConfig(macs_penalty=0.5, macs_target="0.05M")
    method = dfnas(_ground(_config(settings)))
    objective = next(iter(method.assign(_FRESH, range(5)).objectives.values()))
    assert isinstance(objective, PathSampling)
    (entry,) = method.assign(_FRESH, range(1)).assigned.values()
    assert objective.macs_penalty == 0.5 / entry.macs
    assert objective.macs_target == 50_000


def test_unequal_clients_begin_with_the_largest_entry_that_all_of_them_run() -> None:
    entries = micro_entries()
    weak = Capability(macs=entries[2].macs)
    plan = dfnas(_ground(_config(), *[Capability()] * 4, weak)).assign(_FRESH, range(5))
    assert set(plan.assigned.values()) == {entries[2]}


def test_clients_that_cannot_run_a_named_network_are_drawn_once_it_has_shrunk(tmp_path: Path) -> None:
    path = tmp_path / "start.json"
    path.write_text(str(largest()))
    config = _config(dataclasses.replace(_FAST, architecture=str(path)))
    search = _settled(0, 4, 0, 4)
    clients = [Capability(), Capability(macs=_PATHS.macs((0, 4, 0, 4)))] * 2
    method = dfnas(_ground(config, *clients))
    assert sorted(method.assign(_FRESH, range(4)).assigned) == [0, 2]
    for _ in range(3):
        assert len(method.assign(_state({"everyone": search}), range(4)).assigned) == 3
    with pytest.raises(EngineError, match="of 2 clients there, none can run what it is to train"):
        method.assign(_FRESH, [1, 3])


def test_a_named_network_keeps_its_widths_and_is_never_outgrown(tmp_path: Path) -> None:
    path = tmp_path / "start.json"
    path.write_text(str(smallest()))
    method = dfnas(_ground(_config(DfnasConfig(architecture=str(path)))))
    plan = method.assign(_FRESH, range(5))
    assert {entry.architecture for entry in plan.assigned.values()} == {smallest()}
    assert method.probes(_FRESH)[0].architecture == smallest()


# What is kept of the answers.


def test_logits_are_averaged_by_numbers_of_images(tmp_path: Path) -> None:
    def told(update: Update) -> Update:
        return dataclasses.replace(update, examples=10 * update.task.client + 1)

    run, engine = spoiled_run(tmp_path, told, _config(rounds=1))
    state, _ = train_run(run)
    total = sum(10 * update.task.client + 1 for update in engine.updates)
    for number, slot in enumerate(_decisions(state).logits):
        for own, logit in enumerate(slot):
            parts = [(10 * update.task.client + 1, update.logits) for update in engine.updates]
            sums = sum(weight * (logits[number] or ())[own] for weight, logits in parts if logits is not None)
            assert logit == pytest.approx(sums / total, rel=1e-12)
    assert max(abs(logit) for slot in _decisions(state).logits for logit in slot) > 0.1


@pytest.mark.parametrize("rule", ["median", "krum"])
def test_under_a_robust_rule_logits_are_averaged_alike_whatever_images_a_client_invents(
    tmp_path: Path, rule: str
) -> None:
    def told(update: Update) -> Update:
        return dataclasses.replace(update, examples=10**6 if update.task.client == 0 else 1)

    run, engine = spoiled_run(tmp_path, told, _config(rounds=1, server=ServerConfig(aggregation=rule)))
    state, _ = train_run(run)
    assert len(engine.updates) >= 3
    for number, slot in enumerate(_decisions(state).logits):
        for own, logit in enumerate(slot):
            sent = [(update.logits[number] or ())[own] for update in engine.updates if update.logits is not None]
            assert logit == pytest.approx(sum(sent) / len(engine.updates), rel=1e-12)


def test_a_share_that_is_capped_caps_logits_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(update: Update) -> Update:
        return dataclasses.replace(update, examples=10 * update.task.client + 1)

    run, engine = spoiled_run(tmp_path, told, _config(rounds=1))
    monkeypatch.setattr("fedpareto.training.rounds.loop.most_examples", lambda run, plan: 1.0)
    state, _ = train_run(run)
    first = [(update.logits[0] or ())[0] for update in engine.updates if update.logits is not None]
    assert _decisions(state).logits[0][0] == pytest.approx(sum(first) / len(first), rel=1e-12)


def test_updates_that_are_refused_move_no_logits(tmp_path: Path) -> None:
    def spoil(update: Update) -> Update:
        if update.task.client % 2:
            return update
        return dataclasses.replace(update, logits=((math.nan,) * 4, *(update.logits or ())[1:]))

    run, engine = spoiled_run(tmp_path, spoil, _config(rounds=1, clients=ClientsConfig(count=2, per_round=2)))
    state, _ = train_run(run)
    (good,) = [update for update in engine.updates if update.task.client == 1]
    assert state.failures == {"non-finite": 1}
    assert [list(slot) for slot in _decisions(state).logits] == [pytest.approx(slot) for slot in good.logits or ()]


def test_a_search_settles_shrinks_and_ends_with_one_network(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, unspoiled, _config(rounds=8))
    state, tensors = train_run(run)
    sizes = [record.traffic.down for record in recorder(run).records]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    search = _decisions(state)
    assert any(choice is not None for choice in search.settled)
    (probe,) = run.method.probes(state)
    assert probe.architecture == _PATHS.network(search.best(_PATHS))
    # What has left the search keeps the weights it had.
    last = engine.updates[-1].task.architecture
    before = load_checkpoint(tmp_path / "checkpoints" / "round-000007", MICRO).models.supernet
    assert not same_bytes(views(MICRO, tensors, last), views(MICRO, before, last))
    for some in (tensors, before):
        for view in views(MICRO, some, last).values():
            view.zero_()
    assert same_bytes(tensors, before)
    assert any(tensor.any() for tensor in tensors.values())


@pytest.mark.slow
def test_what_was_settled_stays_settled(tmp_path: Path) -> None:
    seen: list[tuple[int | None, ...]] = []
    for rounds in (2, 4, 6):
        state, _ = train_run(simulated_run(tmp_path / str(rounds), _config(rounds=rounds, client=_constant())))
        seen.append(_decisions(state).settled)
    for earlier, later in itertools.pairwise(seen):
        assert all(old is None or old == new for old, new in zip(earlier, later, strict=True))


def _constant() -> Any:
    return dataclasses.replace(short_config().client, lr_schedule="constant")


# Personal searches.


def test_personal_logits_never_mix(tmp_path: Path) -> None:
    run, engine = spoiled_run(tmp_path, unspoiled, _config(DfnasConfig(lr=0.1, gap=1.0, personal=True)))
    state, _ = train_run(run)
    last = {str(update.task.client): update for update in engine.updates}
    assert state.method["decisions"].keys() == last.keys()
    for owner, update in last.items():
        assert _decisions(state, owner).logits == update.logits
    assert len({_decisions(state, owner).logits for owner in last}) == len(last)
    # Everyone begins where it has left off.
    known: dict[int, Any] = {}
    for update in engine.updates:
        assert isinstance(update.task.objective, PathSampling)
        assert update.task.objective.logits == known.get(update.task.client, undecided(_PATHS).logits)
        known[update.task.client] = update.logits


def test_personal_searches_settle_and_shrink_each_on_its_own() -> None:
    method = dfnas(_ground(_config(dataclasses.replace(_FAST, personal=True))))
    searches = {"1": _settled(0, 4, 0, 4), "3": _settled(None, 4, None, 0)}
    plan = method.assign(_state(searches), [1, 2, 3])
    assert {client: entry.architecture for client, entry in plan.assigned.items()} == {
        1: searches["1"].hull(_PATHS),
        2: largest(),
        3: searches["3"].hull(_PATHS),
    }
    assert plan.objectives[1] == Standard()
    assert plan.objectives[2] == PathSampling(undecided(_PATHS).logits, 0.2)


def test_personal_searches_are_evaluated_by_the_mean_of_their_logits() -> None:
    method = dfnas(_ground(_config(dataclasses.replace(_FAST, personal=True))))
    one = Decisions(((0.0, 0.0, 3.0, 0.0), *undecided(_PATHS).logits[1:]), (None,) * 4)
    other = Decisions(((0.0, 1.0, 0.0, 0.0), *undecided(_PATHS).logits[1:]), (1, 0, 0, 0))
    state = _state({"10": one, "2": other})
    (probe,) = method.probes(state)
    assert probe.architecture == _PATHS.network(mean_of([one, other]).best(_PATHS)) == _PATHS.network((2, 0, 0, 0))
    lines = [json.loads(line) for line in method.files(state)["architectures.jsonl"].splitlines()]
    assert [(line["client"], architecture_from_json(line["architecture"])) for line in lines] == [
        (2, _PATHS.network((1, 0, 0, 0))),
        (10, _PATHS.network((2, 0, 0, 0))),
    ]


# Files.


@pytest.mark.parametrize("personal", [False, True])
def test_what_is_found_lies_in_the_runs_folder_with_every_checkpoint(tmp_path: Path, personal: bool) -> None:
    config = _config(dataclasses.replace(_FAST, personal=personal), checkpoint=CheckpointConfig(every=50))
    run = simulated_run(tmp_path, config, should_stop=lambda: True)
    state, _ = train_run(run)
    (probe,) = run.method.probes(state)
    assert architecture_from_text((tmp_path / "architecture.json").read_text(), "") == probe.architecture
    assert (tmp_path / "architectures.jsonl").exists() == personal
    if personal:
        lines = (tmp_path / "architectures.jsonl").read_text().splitlines()
        assert [json.loads(line)["client"] for line in lines] == sorted(map(int, state.method["decisions"]))


def test_what_is_found_lies_there_before_the_last_checkpoint_does(tmp_path: Path) -> None:
    seen: list[bool] = []
    run = simulated_run(tmp_path, _config(rounds=1))

    class Looking:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def files(self, state: RunState) -> Any:
            seen.append((tmp_path / "checkpoints" / "round-000001").exists())
            return self._inner.files(state)

    train_run(dataclasses.replace(run, method=Looking(run.method)))
    assert seen == [False]


# Bytes.


@pytest.mark.slow
@pytest.mark.parametrize("personal", [False, True])
@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_search_ends_with_the_bytes_and_the_state_of_one_never_interrupted(
    tmp_path: Path, personal: bool, stop_after: int
) -> None:
    config = _config(dataclasses.replace(_FAST, personal=personal), rounds=5)
    state, tensors = train_run(simulated_run(tmp_path / "whole", config))
    answers = iter([False] * (stop_after - 1) + [True])
    train_run(simulated_run(tmp_path / "parts", config, should_stop=lambda: next(answers)))
    checkpoint = load_checkpoint(newest_checkpoint(tmp_path / "parts"), MICRO)
    assert checkpoint.state.round == stop_after
    assert checkpoint.state.method["decisions"]
    resumed = train(simulated_run(tmp_path / "parts", config), checkpoint.state, checkpoint.models)
    assert same_bytes(checkpoint.models.supernet, tensors)
    assert resumed == state
    assert any(choice is not None for value in state.method["decisions"].values() for choice in value["settled"])
    for name in ("architecture.json", *(["architectures.jsonl"] if personal else [])):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_clients_at_once_change_nothing(tmp_path: Path) -> None:
    (state, tensors), (other_state, other) = (
        train_run(simulated_run(tmp_path / str(workers), _config(), profile=Profile(workers=workers)))
        for workers in (1, 3)
    )
    assert same_bytes(tensors, other)
    assert state == other_state


def test_a_start_that_has_changed_is_refused_in_one_line(tmp_path: Path) -> None:
    method = dfnas(_ground(_config()))
    with pytest.raises(UserError, match=r"dfnas\.architecture holds another network than when the run was started"):
        method.assign(_state({}, start=smallest()), range(5))


# Over Flower.


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


def _flower(folder: Path, **changes: Any) -> RunConfig:
    folder.mkdir()
    settings = DfnasConfig(lr=0.2, gap=0.15, macs_penalty=0.1)
    return flower_config(folder, method="dfnas", dfnas=settings, rounds=2, **changes)


@pytest.mark.slow
@pytest.mark.usefixtures("_hurried")
def test_a_search_over_flower_is_that_of_the_simulation(tmp_path: Path) -> None:
    link = LocalLink(tmp_path / "link", 4)
    _, state, tensors = trained(_flower(tmp_path / "flower"), link)
    here, expected, own = trained(_flower(tmp_path / "here", engine="in-process"), None)
    assert same_bytes(tensors, own)
    assert state.method == expected.method
    assert state.compute == expected.compute > 0
    assert state.failures == {}
    assert _decisions(state).logits != undecided(_PATHS).logits
    assert isinstance(here.method, Dfnas)


def _spoiled_jobs(**fields: Any) -> Any:
    def edit(answer: dict[str, Any]) -> None:
        answer["jobs"][0].update(fields)

    return edited(edit)


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize(
    ("logits", "kind"),
    [
        (None, "shape"),
        ([[0.0] * 4], "shape"),
        ([[0.0] * 3, [0.0] * 5, [0.0] * 4, [0.0] * 5], "shape"),
        ([None, [0.0] * 5, [0.0] * 4, [0.0] * 5], "shape"),
        # No JSON at all.
        ([[math.nan] * 4, [0.0] * 5, [0.0] * 4, [0.0] * 5], "malformed"),
        ([[1e999] * 4, [0.0] * 5, [0.0] * 4, [0.0] * 5], "malformed"),
        ([[10**400] * 4, [0.0] * 5, [0.0] * 4, [0.0] * 5], "malformed"),
        ([["0"] * 4, [0.0] * 5, [0.0] * 4, [0.0] * 5], "malformed"),
        ("logits", "malformed"),
        ({"0": 1}, "malformed"),
    ],
    ids=range(10),
)
def test_logits_of_nonsense_over_flower_are_a_failure_of_that_client(tmp_path: Path, logits: Any, kind: str) -> None:
    link = LocalLink(tmp_path / "link", 4)
    link.spoil = only(2, "train", _spoiled_jobs(logits=logits))
    config = dataclasses.replace(_flower(tmp_path / "flower"), rounds=1)
    _, state, _ = trained(config, link)
    assert state.failures == {kind: 1}
    assert all(math.isfinite(logit) for slot in _decisions(state).logits for logit in slot)


# The command.


@pytest.mark.slow
def test_the_command_ends_with_how_to_take_what_it_has_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished_run(tmp_path, method="dfnas", dfnas=_FAST, rounds=2)
    asked = f"search-subnet --run {folder} --architecture {folder / 'architecture.json'} --checkpoint newest"
    assert f"next: {asked} --output subnet" in capsys.readouterr().err
    (probe,) = read_metrics(folder)[-1]["probes"]
    with pytest.raises(SystemExit) as caught:
        search_main([*asked.split()[1:], "--json", "--output", str(tmp_path / "subnet")])
    assert caught.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["architecture"] == json.loads((folder / "architecture.json").read_text())
    assert report["round"] == 2
    assert report["macs"] == probe["macs"]
    # Ready as it is: what the run has measured.
    assert report["validation_accuracy"] == pytest.approx(probe["accuracy"], abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 0.0}, "dfnas.lr is 0.0; it must be positive"),
        ({"lr": math.nan}, "dfnas.lr is nan; it must be positive"),
        ({"gap": 0.0}, "dfnas.gap is 0.0; it must be above 0 and at most 1"),
        ({"gap": 1.1}, "dfnas.gap is 1.1"),
        ({"macs_penalty": -1.0}, "dfnas.macs_penalty is -1.0; it must not be negative (0 for none)"),
        ({"macs_penalty": math.inf}, "dfnas.macs_penalty is inf"),
        ({"macs_penalty": 1.0, "macs_target": "many"}, "cannot read 'many' as a number"),
        ({"macs_target": "60M"}, "dfnas.macs_target is 60M without dfnas.macs_penalty; give both"),
    ],
    ids=range(8),
)
def test_settings_of_nonsense_are_refused_in_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as caught:
        DfnasConfig(**settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file"),
        ("{", "is not valid JSON"),
        (str(largest()).replace('"resolution": 8', '"resolution": 9'), "resolution is 9; allowed: 8"),
    ],
    ids=range(3),
)
def test_a_start_of_nonsense_is_refused_in_one_line(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "start.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        dfnas(_ground(_config(DfnasConfig(architecture=str(path)))))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_start_that_no_client_can_run_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "start.json"
    path.write_text(str(largest()))
    config = _config(DfnasConfig(architecture=str(path)))
    with pytest.raises(UserError, match=r"no client can run the .* MACs of dfnas\.architecture"):
        dfnas(_ground(config, *[Capability(macs=1000)] * 5))
    with pytest.raises(UserError, match=r"no entry of the cache can be run by every client.*--dfnas\.architecture"):
        dfnas(_ground(_config(), *[Capability(macs=1000)] * 5))


def test_a_private_search_is_refused() -> None:
    with pytest.raises(UserError, match=r"method dfnas does not go with privacy\.clip"):
        _config(privacy=PrivacyConfig(clip=1.0))

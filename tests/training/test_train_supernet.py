import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.commands import Outcome, check_refused, run_main
from helpers.runs.federation import MICRO, arguments_of, finished_run, micro_config, read_metrics, write_micro
from PIL import Image

from fedpareto.training.cli import main
from fedpareto.training.config.run import config_to_mapping
from fedpareto.training.runs.folder import read_run_config


class Command:
    """``train-supernet`` for one round on the micro space, in a folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.capsys, self.folder, self.output = capsys, folder, folder / "run"
        self.config = arguments_of(micro_config(folder, rounds=1))

    def __call__(self, *arguments: object) -> Outcome:
        return run_main(main, self.capsys, *self.config, *arguments)

    def error(self, *arguments: object) -> str:
        """Run, check that it is refused in one line without writing anything, and return the line."""
        before = self._files()
        line = check_refused(self(*arguments), "train-supernet")
        assert self._files() == before
        return line

    def resume(self, *arguments: object) -> Outcome:
        return run_main(main, self.capsys, "--resume", self.output, *arguments)

    def resume_error(self, *arguments: object) -> str:
        before = self._files()
        line = check_refused(self.resume(*arguments), "train-supernet")
        assert self._files() == before
        return line

    def _files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    return Command(capsys, tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    return finished_run(tmp_path_factory.mktemp("finished"), rounds=2)


@pytest.fixture
def run(finished: Path, command: Command) -> Path:
    """A copy of the finished run, where ``command`` looks for it, that it may damage."""
    shutil.copytree(finished, command.output)
    return command.output


def write_images(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 40) -> Path:
    """Write small image files as ROOT/train/CLASS and ROOT/test/CLASS."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        for index, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = torch.randint(120, (8, 8, 3), generator=generator, dtype=torch.uint8) + 100 * index
                Image.fromarray(noise.to(torch.uint8).numpy()).save(folder / f"{number:03d}.png")
    return root


def test_a_run_leaves_the_files_of_the_design(command: Command) -> None:
    outcome = command()
    assert outcome.code == 0
    names = {path.name for path in command.output.iterdir()}
    assert names >= {"config.yaml", "space.yaml", "cache.jsonl", "partition.json", "metrics.jsonl", "checkpoints"}
    (record,) = read_metrics(command.output)
    assert record["round"] == 1
    assert len(record["clients"]) == 3
    assert len(record["probes"]) == 3
    assert f"next: search-subnet --run {command.output} --flops-budget" in outcome.err
    assert f"{record['probes'][0]['macs']:,}" in outcome.out


@pytest.mark.slow
def test_the_written_configuration_is_complete_and_runs_again_with_the_same_result(command: Command) -> None:
    assert command().code == 0
    again = command.folder / "again"
    assert run_main(main, command.capsys, "--config", command.output / "config.yaml", "--output", again).code == 0
    name = "checkpoints/round-000001/supernet.safetensors"
    assert (again / name).read_bytes() == (command.output / name).read_bytes()


def test_options_are_spelled_with_dashes_and_override_the_file(command: Command) -> None:
    assert command("--client.batch-size", 8, "--clients.per-round", 2).code == 0
    config = read_run_config(command.output)
    assert (config.client.batch_size, config.clients.per_round) == (8, 2)


@pytest.mark.slow
def test_a_run_on_an_image_folder_has_its_classes(command: Command) -> None:
    root = write_images(command.folder / "images")
    space, _ = write_micro(command.folder)
    small = ("--clients.count", 2, "--clients.per-round", 2, "--client.batch-size", 8, "--partition.scheme", "iid")
    outcome = run_main(
        main, command.capsys,
        "--space", space, "--data.name", "imagefolder", "--data.root", root, "--output", command.output,
        "--rounds", 1, "--client.epochs", 1, *small, "--tracking.wandb", "off", "--tracking.progress", "false",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert yaml.safe_load((command.output / "space.yaml").read_text())["classes"] == 2
    assert json.loads((command.output / "partition.json").read_text())["classes"] == ["cat", "dog"]


def test_a_finished_run_says_so_when_it_is_resumed(command: Command, run: Path) -> None:
    before = (run / "metrics.jsonl").read_bytes()
    outcome = command.resume()
    assert outcome.code == 0
    assert "is finished after 2 rounds" in outcome.err
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--space", "mobilenet-cifra"), "unknown space 'mobilenet-cifra'; valid: mobilenet-cifar"),
        (("--data.name", "cifar11"), "unknown data set 'cifar11'; valid: arrays, cifar10, cifar100, clientfolders,"),
        (("--clients.per-round", 7), "clients.per_round is 7, more than the 6 clients"),
        (("--clients.count", 0), "clients.count is 0"),
        (("--rounds", 0), "rounds is 0; it must be at least 1"),
        (("--client.lr", -1), "client.lr is -1.0; it must be positive"),
        (("--client.lr", "fast"), "client.lr is fast; it must be a number"),
        (("--client.batch-size", 1), "client.batch_size is 1; it must be at least 2"),
        (("--partition.alpha", 0), "partition.alpha is 0.0; it must be positive"),
        (("--partition.scheme", "by-hand"), "partition.scheme"),
        (("--data.validation", 1.5), "data.validation is 1.5; it must be between 0 and 1"),
        (("--data.crop", 9), "data.crop is 9; images have 8 pixels a side"),
        (("--device", "tpu"), "device 'tpu' is not on this machine; it has: cpu"),
        (("--device", "cuda:99"), "device 'cuda:99' is not on this machine"),
        (("--client.bath-size", 4), "client.bath-size"),
        (("--cache", "nowhere.jsonl"), "cannot read nowhere.jsonl: No such file or directory"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--resume", "nowhere"), "nowhere holds no run"),
        (("--clients.max-macs", '["6X"]'), "cannot read '6X' as a number"),
        (("--clients.max-macs", '["1K"]'), "client 0 can run 1K MACs, less than the smallest cache entry"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_in_one_line(command: Command, arguments: tuple[object, ...], expected: str) -> None:
    assert expected in command.error(*arguments)


def test_a_partition_that_starves_a_client_says_what_to_change(command: Command) -> None:
    error = command.error("--clients.count", 40, "--client.batch-size", 64)
    assert "with at least one batch of 64 each" in error
    assert "raise --partition.alpha" in error
    assert "use fewer --clients.count" in error


def test_a_cache_of_another_space_is_refused(command: Command) -> None:
    space = dict(json.loads((command.folder / "micro.yaml").read_text()), classes=10, kernels=[3])
    (command.folder / "other.yaml").write_text(json.dumps(space))
    error = command.error("--space", command.folder / "other.yaml")
    assert f"is a cache of {MICRO.name} (classes: 10, " in error


def test_files_are_checked_before_the_images_are_read(command: Command) -> None:
    images = command.folder / "images"
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (images / place).mkdir(parents=True)
        (images / place / "0.png").write_bytes(b"no picture")
    unusable = ("--data.name", "imagefolder", "--data.root", images)
    assert "class 'a' has 1 training image" in command.error(*unusable)
    assert "cannot read no.jsonl" in command.error(*unusable, "--cache", "no.jsonl")
    space = dict(json.loads((command.folder / "micro.yaml").read_text()), kernels=[3])
    (command.folder / "my space.yaml").write_text(json.dumps(space))
    error = command.error(*unusable, "--space", command.folder / "my space.yaml")
    assert f"build-cache --space '{command.folder}/my space.yaml' --output {command.folder}/new-cache.jsonl" in error
    (command.folder / "cache.jsonl").write_text("{")
    assert "is not valid JSON" in command.error(*unusable)


def test_a_cache_with_altered_numbers_is_refused(command: Command) -> None:
    path = command.folder / "cache.jsonl"
    lines = path.read_text().splitlines()
    entry = dict(json.loads(lines[1]), macs=1)
    path.write_text("\n".join([lines[0], json.dumps(entry), *lines[2:]]))
    assert f"{path}:2: macs is 1, recomputed" in command.error()


def test_an_output_that_holds_a_run_offers_to_resume_it(command: Command, run: Path) -> None:
    assert f"train-supernet --resume {run}" in command.error()


def test_an_output_that_holds_something_else_is_refused(command: Command) -> None:
    command.output.mkdir()
    (command.output / "notes.txt").write_text("mine")
    assert "is not an empty folder" in command.error()


def test_an_output_that_cannot_be_made_is_refused(command: Command) -> None:
    assert "cannot write" in command.error("--output", "/proc/nowhere/run")


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--client.lr", 0.5), "client.lr is 0.5"),
        (("--client.epochs", 9), "client.epochs is 9"),
        (("--seed", 1), "seed is 1"),
    ],
)
def test_a_resume_with_a_changed_option_names_the_field(
    command: Command, run: Path, arguments: tuple[object, ...], field: str
) -> None:
    error = command.resume_error(*arguments)
    assert f"{field}, but {run} was trained with" in error


def test_a_resume_with_an_edited_configuration_says_how_changes_are_given(command: Command, run: Path) -> None:
    mapping: dict[str, Any] = config_to_mapping(read_run_config(run))
    mapping["client"]["momentum"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(mapping))
    error = command.resume_error()
    assert f"{run / 'config.yaml'} is damaged (its digest does not fit)" in error
    assert f"changes are given as options of train-supernet --resume {run}" in error
    # A run of an earlier program has no digests: the checkpoint knows what it was trained with.
    (run / "digests.json").unlink()
    outcome = command.resume()
    assert outcome.code == 2
    *remarks, error = outcome.err.splitlines()
    assert any(remark.startswith(f"{run} has no digests.json: an earlier version wrote it") for remark in remarks)
    assert "client.momentum is 0.5" in error


def test_a_resume_may_change_where_it_is_reported(command: Command, run: Path) -> None:
    assert command.resume("--tracking.project", "elsewhere", "--checkpoint.keep", 5).code == 0


def test_a_resume_may_adapt_to_another_machine_and_is_told_that_bytes_differ(command: Command, run: Path) -> None:
    outcome = command.resume("--client.batch-size", 8, "--execution.threads", 2)
    assert outcome.code == 0
    assert "client.batch_size is 8 from here on; it was 16: the run ends with other bytes\n" in outcome.err
    assert "execution.threads is 2 from here on; it was 1: the run ends with other bytes\n" in outcome.err
    assert "a resumed run may only lower it" in command.resume_error("--client.batch-size", 17)


def test_a_moved_run_can_be_resumed(command: Command, run: Path) -> None:
    moved = run.rename(command.folder / "moved")
    assert run_main(main, command.capsys, "--resume", moved).code == 0


@pytest.mark.parametrize("name", ["supernet.safetensors", "state.json"])
def test_a_checkpoint_that_is_cut_short_is_named(command: Command, run: Path, name: str) -> None:
    path = run / "checkpoints/round-000002" / name
    path.write_bytes(path.read_bytes()[:-50])
    error = command.resume_error()
    assert f"checkpoint {path.parent} is damaged ({name}: its digest does not fit); remove that folder" in error


def test_removing_the_damaged_checkpoint_resumes_from_the_one_before(command: Command, run: Path) -> None:
    whole = (run / "checkpoints/round-000002/supernet.safetensors").read_bytes()
    shutil.rmtree(run / "checkpoints/round-000002")
    assert command.resume().code == 0
    assert (run / "checkpoints/round-000002/supernet.safetensors").read_bytes() == whole


@pytest.mark.parametrize("name", ["config.yaml", "space.yaml", "cache.jsonl", "partition.json"])
def test_a_run_that_lacks_a_file_is_named(command: Command, run: Path, name: str) -> None:
    (run / name).unlink()
    assert f"{run} holds no run: {run / name} is missing" in command.resume_error()


def test_a_run_goes_on_only_with_the_images_it_was_started_with(command: Command) -> None:
    root = write_images(command.folder / "images")
    space, _ = write_micro(command.folder)
    arguments = (
        "--space", space, "--data.name", "imagefolder", "--data.root", root, "--output", command.output,
        "--rounds", 1, "--client.epochs", 1, "--clients.count", 2, "--clients.per-round", 2, "--client.batch-size", 8,
        "--partition.scheme", "iid", "--tracking.wandb", "off", "--tracking.progress", "false",
    )  # fmt: skip
    assert run_main(main, command.capsys, *arguments).code == 0
    Image.new("RGB", (8, 8)).save(root / "train/cat/000.png")
    assert f"the images in {root} are not those" in command.resume_error()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda root: shutil.rmtree(root / "train"), "there is no folder"),
        (lambda root: shutil.rmtree(root / "test/dog"), "lacks the class 'dog'"),
        (lambda root: [path.unlink() for path in (root / "train/dog").iterdir()], "holds no images"),
        (lambda root: (root / "train/dog/003.png").write_bytes(b"\x89PNG cut"), "003.png"),
    ],
)
def test_damaged_image_folders_are_named(command: Command, damage: Any, expected: str) -> None:
    root = write_images(command.folder / "images", count=4)
    damage(root)
    clients = ("--clients.count", 1, "--clients.per-round", 1, "--client.batch-size", 2)
    error = command.error("--data.name", "imagefolder", "--data.root", root, *clients)
    assert expected in error
    assert str(root) in error


def test_training_that_diverges_ends_with_a_checkpoint_and_advice(command: Command) -> None:
    outcome = command("--client.lr", 1e30, "--client.clip", 0)
    assert outcome.code == 2
    assert "all 3 clients of round 1 failed" in outcome.err
    assert "lower --client.lr" in outcome.err
    assert (command.output / "checkpoints/round-000000/supernet.safetensors").exists()

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from helpers.commands import MODULES, check_refused, run_main
from helpers.repository import ROOT

from fedpareto.supernet.common.command_line import CommandParser, options_parser
from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.terminal.console import run_command

#: The commands of the product by the module of their ``main``.


@dataclasses.dataclass(frozen=True)
class Inner:
    """A group.

    Attributes:
        size: of something.
        file_names: of something.
    """

    size: int = 3
    file_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"inner.size is {self.size}; it must be at least 1")


@dataclasses.dataclass(frozen=True)
class Options:
    """Options.

    Attributes:
        name: of something.
        ratio: of something.
        shape: of something.
        inner: a group.
    """

    name: str | None = None
    ratio: float = 1.0
    shape: Literal["round", "square"] = "round"
    inner: Inner = dataclasses.field(default_factory=Inner)


def _parser() -> CommandParser:
    parser = CommandParser(prog="prog", description="A command.")
    parser.add_config("--config", Options, "file of options")
    parser.add_class_arguments(Options)
    parser.spell_with_dashes()
    return parser


def _parsed(*arguments: str) -> Options:
    parser = _parser()
    return parser.build(Options, parser.parse(arguments))


def _main(arguments: Sequence[str]) -> None:
    run_command("prog", lambda given: print(_parsed(*given)), arguments)


def _error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    return check_refused(run_main(_main, capsys, *arguments), "prog")


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "options.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_options_and_files_override_what_came_before_them(file: Callable[[str], Path]) -> None:
    path = str(file("name: 1e5\ninner: {size: 7, file_names: 2024}"))
    assert _parsed("--config", path) == Options("1e5", inner=Inner(7, ("2024",)))
    assert _parsed("--config", path, "--inner.size", "9").inner == Inner(9, ("2024",))
    assert _parsed("--inner.size", "9", "--ratio", "2", "--config", path) == Options(
        "1e5", 2.0, inner=Inner(7, ("2024",))
    )


def test_a_group_takes_a_mapping(file: Callable[[str], Path]) -> None:
    assert _parsed("--inner", "{size: 5}").inner == Inner(5)
    assert _parsed("--inner.size", "4", "--inner", "{file_names: [a, 1e3]}").inner == Inner(4, ("a", "1e3"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--inner", "5"), "--inner is a group of options, not one; give --inner.size, --inner.file-names"),
        (("--inner", "options.yaml"), "--inner is a group of options"),
        (("--inner", "{siez: 5}"), "there is no field 'inner.siez'; did you mean 'inner.size'?"),
        (("--inner", "{size: 1, size: 2}"), "'size' is there twice"),
        (("--inner.siez", "5"), "there is no option --inner.siez; did you mean --inner.size?"),
        (("--inner.size", "many"), "--inner.size is many; it must be a whole number"),
        (("--inner.size=",), "--inner.size is empty; give it a value, or leave it out"),
        (("--name", ""), "--name is empty; give it a value, or leave it out"),
        (("--name=",), "--name is empty"),
        (("--shape", "oval"), "--shape is oval; it must be one of 'round', 'square'"),
        (("--ratio", "1e999"), "--ratio is 1e999; it must be a finite number"),
        (("--ratio", "nan"), "--ratio is nan; it must be a number"),
        (("--inner.file-names", "[a"), "is not valid YAML"),
        (("--name",), "expected one argument"),
        (("extra",), "unrecognized arguments: extra"),
        (("-n", "a"), "-n"),
        (("--config", "nowhere.yaml"), "cannot read nowhere.yaml: No such file or directory"),
        (("--config", "."), "cannot read .: it is a folder, not a file"),
        (("--config", "/dev/zero"), "cannot read /dev/zero: it is a device, not a file"),
        (("--config", ""), "--config is empty; give it a value, or leave it out"),
        (("--ratio", "x", "--inner.size", "y", "--colour", "z"), "--colour"),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in _error(capsys, *arguments)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "{path} is empty; it must hold a mapping of fields"),
        ("[1]", "{path} must hold a mapping of fields, one 'name: value' a line; it holds a list"),
        ("digits", "it holds a single value"),
        ("inner:", "{path}: inner is empty (null); it must be a group of fields: size, file_names"),
        ("inner: [1]", "{path}: inner is [1]; it must be a group of fields"),
        ("inner: {size: }", "{path}: inner.size is empty (null); it must be a whole number"),
        ("inner: {size: 0}", "{path}: inner.size is 0; it must be at least 1"),
        ("inner: {siez: 0}", "{path}: there is no field 'inner.siez'; did you mean 'inner.size'?"),
        ("shape: oval", "{path}: shape is oval; it must be one of 'round', 'square'"),
        ("name: a\nname: b", "{path}, line 2: 'name' is there twice"),
        ("config: a", "{path}: there is no field 'config'"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(
    capsys: pytest.CaptureFixture[str], file: Callable[[str], Path], text: str, said: str
) -> None:
    path = file(text)
    assert said.format(path=path) in _error(capsys, "--config", path)


def test_a_mistake_of_the_command_line_does_not_name_the_file(
    capsys: pytest.CaptureFixture[str], file: Callable[[str], Path]
) -> None:
    path = file("inner: {size: 0}")
    assert "error: inner.size is 0" in _error(capsys, "--config", path, "--inner.size", "0")
    assert "error: inner.size is 0" in _error(capsys, "--inner", "{size: 0}")


@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\n"])
def test_a_byte_order_mark_is_no_part_of_a_file(file: Callable[[str], Path], mark: str) -> None:
    assert _parsed("--config", str(file(f"{mark}name: a"))).name == "a"


def test_a_file_of_another_encoding_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "options.yaml"
    path.write_bytes("name: é".encode("utf-16"))
    assert f"cannot read {path}: it is not UTF-8 text; save it as UTF-8" in _error(capsys, "--config", path)
    path.write_bytes("name: e".encode("utf-16-le"))
    assert "save it as UTF-8" in _error(capsys, "--config", path)


@pytest.mark.parametrize("command", MODULES)
def test_no_option_of_a_command_may_be_abbreviated(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    module: Any = importlib.import_module(MODULES[command])
    options: Any = next((value for name, value in vars(module).items() if name.endswith("Options")), None)
    parser = module._parser() if command == "train-supernet" else options_parser(command, "", options)
    known = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    for option in sorted(known):
        short = option[: max(3, len(option) - 2)]
        if short not in known:
            for given in ([short, "x"], [f"{short}=x"]):
                line = check_refused(run_main(parser.parse, capsys, *given), command)
                assert f"there is no option {short}; did you mean " in line
                assert option in line


@pytest.mark.parametrize("command", MODULES)
def test_an_abbreviation_ends_a_command_before_it_does_anything(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main = importlib.import_module(MODULES[command]).main
    assert "there is no option --hel; did you mean --help" in check_refused(run_main(main, capsys, "--hel"), command)
    assert list(tmp_path.iterdir()) == []


def test_no_parser_of_ours_takes_abbreviations() -> None:
    root = ROOT
    for folder in ("examples", "deploy", "benchmarks", "training", "search", "cache", "fitness", "supernet"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            calls = [part.split("\n")[0] for part in text.split("argparse.ArgumentParser(")[1:]]
            assert all("allow_abbrev=False" in call for call in calls), path


@dataclasses.dataclass
class Switches:
    """Options of a command for tests.

    Attributes:
        output_file: where to write.
        flops_max: most MACs.
        rounds: how many rounds.
        dry_run: write nothing.
        with_plot: draw.
    """

    output_file: str
    flops_max: str | None = None
    rounds: int = 3
    dry_run: bool = False
    with_plot: bool = True


def _switched(*arguments: str) -> dict[str, object]:
    return vars(options_parser("prog", "A command.", Switches).parse(arguments)).copy()


def _switching(arguments: Sequence[str]) -> None:
    run_command("prog", lambda given: print(_switched(*given)), arguments)


@pytest.mark.parametrize("option", ["--output-file", "--output_file"])
def test_options_are_spelled_with_dashes_or_underscores(option: str) -> None:
    assert _switched(option, "a.txt")["output_file"] == "a.txt"
    assert _switched(f"{option}=a.txt")["output_file"] == "a.txt"


def test_help_shows_dashes_and_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run_main(_switching, capsys, "--help")
    assert outcome.code == 0
    assert "--output-file" in outcome.out
    assert "--dry-run [{true,false}]" in outcome.out
    assert "most MACs" in outcome.out
    assert "_file" not in outcome.out


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], (False, True)),
        (["--dry-run"], (True, True)),
        (["--dry_run", "true"], (True, True)),
        (["--dry-run=false"], (False, True)),
        (["--with-plot", "false"], (False, False)),
        (["--dry-run", "--with-plot", "False"], (True, False)),
    ],
)
def test_a_switch_alone_is_on_and_takes_true_or_false(given: list[str], expected: tuple[bool, bool]) -> None:
    parsed = _switched(*given, "--output-file", "a")
    assert (parsed["dry_run"], parsed["with_plot"]) == expected
    assert parsed["output_file"] == "a"


def test_a_switch_before_another_option_takes_no_value_from_it() -> None:
    parsed = _switched("--dry-run", "--rounds", "5", "--output-file", "a")
    assert (parsed["dry_run"], parsed["rounds"]) == (True, 5)


@pytest.mark.parametrize("value", ["-3M", "-.5", "-3"])
def test_a_negative_value_is_a_value_and_no_option(value: str) -> None:
    assert _switched("--flops-max", value, "--output-file", "a")["flops_max"] == value


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "output"),
        (["--output-file", "a", "--rounds", "many"], "rounds"),
        (["--output-file", "a", "--rounds", "1.5"], "rounds"),
        (["--output-file", "a", "--colour", "red"], "--colour"),
        (["--output-file", "a", "extra"], "extra"),
        (["--output-file"], "output"),
        (["--output-file", "a", "--dry-run=maybe"], "dry"),
    ],
)
def test_a_bad_option_of_a_command_is_one_line_that_names_it(
    capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    error = check_refused(run_main(_switching, capsys, *arguments), "prog")
    assert named in error
    assert "see prog --help" in error

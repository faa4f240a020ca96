"""Things by name: built in, registered, and found by entry points."""

import sys
from pathlib import Path

import pytest
from helpers.distributions import write_distribution

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.registry import Registry


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _registry() -> Registry[object]:
    return Registry("colour", "tests.colours", {"red": "math:pi", "blue": 3})


def test_a_reference_is_imported_when_it_is_used(site: Path) -> None:
    references = {"tests.colours": {"green": "greens:GREEN"}}
    write_distribution(site, "greens", references, {"greens.py": "GREEN = 'as grass'\n"})
    registry = _registry()
    assert registry.names() == ("red", "blue", "green")
    assert registry.others() == ("green",)
    registry.check("green")
    assert "greens" not in sys.modules
    assert registry.get("green") == "as grass"
    assert registry.get("red") == 3.141592653589793
    assert registry.get("blue") == 3


def test_one_of_another_group_is_none(site: Path) -> None:
    write_distribution(site, "greens", {"tests.shapes": {"green": "greens:GREEN"}}, {"greens.py": "GREEN = 1\n"})
    assert _registry().names() == ("red", "blue")


def test_a_name_is_taken_once() -> None:
    registry = _registry()
    registry.register("black", 1)
    registry.register("black", 1)
    for name in ("black", "red", "blue"):
        with pytest.raises(UserError, match=f"there is another colour '{name}'; give yours another name"):
            registry.register(name, 2)
    registry.remove("black")
    registry.register("black", 2)
    assert registry.get("black") == 2


def test_an_unknown_name_is_an_error_with_the_nearest() -> None:
    expected = r"unknown colour 'bluo'; valid: blue, red \(did you mean 'blue'\?\); correct the name, or install the"
    for ask in (_registry().get, _registry().check):
        with pytest.raises(UserError, match=expected):
            ask("bluo")


def test_one_that_a_package_registers_when_it_is_imported_is_no_other(site: Path) -> None:
    text = "import colours\ncolours.REGISTRY.register('green', 7)\n\ndef green(): raise AssertionError\n"
    write_distribution(site, "greens", {"tests.colours": {"green": "greens2:green"}}, {"greens2.py": text})
    colours = type(sys)("colours")
    registry = _registry()
    colours.REGISTRY = registry  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "colours", colours)
        assert registry.get("green") == 7
        # A program that has imported it before anything was looked for.
        again = _registry()
        again.register("green", 8)
        assert again.names() == ("red", "blue", "green")
        assert again.get("green") == 8


def test_what_cannot_be_loaded_is_told_of_once_and_is_an_error_when_it_is_asked_for(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_distribution(site, "bad-greens", {"tests.colours": {"green": "no_such_module:GREEN"}})
    registry = _registry()
    assert list(registry.everything()) == [3.141592653589793, 3]
    assert list(registry.everything()) == [3.141592653589793, 3]
    reason = "(ModuleNotFoundError: No module named 'no_such_module')"
    told = f"the colour 'green' of bad-greens 1.0 cannot be loaded {reason}; mend or uninstall that; it is left out"
    assert capsys.readouterr().err.splitlines() == [told]
    with pytest.raises(UserError, match=r"the colour 'green' of bad-greens 1\.0 cannot be loaded"):
        registry.get("green")


def test_what_an_entry_point_refers_to_is_checked(site: Path) -> None:
    def checked(name: str, thing: object) -> object:
        if not isinstance(thing, str):
            raise UserError(f"{name} is {thing}, no text")
        return thing.upper()

    write_distribution(site, "g", {"tests.colours": {"green": "os:name", "grey": "sys:maxsize"}})
    registry: Registry[object] = Registry("colour", "tests.colours", {}, checked)
    assert registry.get("green") == "POSIX"
    with pytest.raises(UserError, match=rf"the colour 'grey' of g 1\.0 cannot be loaded \(grey is {sys.maxsize}, no"):
        registry.get("grey")


def test_a_name_of_two_packages_is_of_neither(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        write_distribution(site, name, {"tests.colours": {"green": f"{name}:G", "red": f"{name}:R"}})
    registry = _registry()
    assert registry.names() == ("red", "blue")
    with pytest.raises(UserError, match=r"two packages have a colour 'green': (one|two) 1\.0 and (one|two) 1\.0; un"):
        registry.get("green")
    assert registry.get("red") == 3.141592653589793
    told = capsys.readouterr().err.splitlines()
    assert sorted(told) == [f"there is another colour 'red'; that of {name} 1.0 is left out" for name in ("one", "two")]

"""A model on a device that is used only if the right key has signed it: the script's own check of our signatures."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.trust.keys import KeyPair, write_pair

from fedpareto.search.export import deploy
from fedpareto.supernet.common.storage.files import record
from fedpareto.supernet.common.storage.signatures import read_signing_key, sign_folder


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_pair(tmp_path)


def _signed(folder: Path, keys: KeyPair, content: bytes = b"model") -> Path:
    folder.mkdir()
    (folder / "subnet.onnx").write_bytes(content)
    (folder / "architecture.json").write_text("{}")
    record(folder)
    sign_folder(folder, "subnet", read_signing_key(keys.private))
    return folder / "subnet.onnx"


def test_a_signed_model_passes_alone_with_its_digests_and_signature(tmp_path: Path, keys: KeyPair) -> None:
    model = _signed(tmp_path / "a", keys)
    (tmp_path / "a" / "architecture.json").unlink()
    deploy.check_signed(model, model.read_bytes(), keys.public)


def _alter(model: Path, other: Path) -> None:
    del other
    model.write_bytes(b"another")


def _alter_with_digest(model: Path, other: Path) -> None:
    _alter(model, other)
    record(model.parent)


def _take_signature(model: Path, other: Path) -> None:
    shutil.copy(other.with_name("signature.json"), model.parent)


def _take_signature_and_digests(model: Path, other: Path) -> None:
    _take_signature(model, other)
    shutil.copy(other.with_name("digests.json"), model.parent)


def _no_signature(model: Path, other: Path) -> None:
    del other
    model.with_name("signature.json").unlink()


def _no_object(model: Path, other: Path) -> None:
    del other
    model.with_name("signature.json").write_text("[" * 10000)


_ATTACKS = (_alter, _alter_with_digest, _take_signature, _take_signature_and_digests, _no_signature, _no_object)


@pytest.mark.parametrize("attack", _ATTACKS)
def test_a_model_that_was_tampered_with_is_refused_in_one_line(
    tmp_path: Path, keys: KeyPair, attack: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    model, other = _signed(tmp_path / "a", keys), _signed(tmp_path / "b", keys, b"other")
    attack(model, other)
    with pytest.raises(deploy.DeployError, match=r"is not signed with .*; copy it again"):
        deploy.check_signed(model, model.read_bytes(), keys.public)
    assert deploy.main([str(model), "picture.png", "--verify", str(keys.public)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_somebody_elses_key_and_what_is_no_key_are_refused(
    tmp_path: Path, keys: KeyPair, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _signed(tmp_path / "a", keys)
    stranger = write_pair(tmp_path, "stranger", 2)
    for key, words in (
        (stranger.public, "another key signed it"),
        (tmp_path / "nowhere", "cannot read the public key"),
        (model, "cannot read the public key"),
        (" ", "--verify names no file"),
    ):
        assert deploy.main(["--verify", str(key), str(model), "picture.png"]) == 2
        assert words in capsys.readouterr().err
    assert deploy.main([str(model), "picture.png", "--verify"]) == 2
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    with pytest.raises(deploy.DeployError, match="pip install cryptography"):
        deploy.check_signed(model, b"", keys.public)

"""Signatures of folders, attacked: whatever is changed in a signed folder is refused by who has the public key."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from helpers.trust.keys import KeyPair, write_pair, write_private
from hypothesis import given
from hypothesis import strategies as st

from fedpareto.supernet.common.errors import UserError
from fedpareto.supernet.common.storage.digests import DIGESTS, SIGNATURE, digest_of
from fedpareto.supernet.common.storage.files import record
from fedpareto.supernet.common.storage.signatures import (
    PASSPHRASE,
    SignatureError,
    check_signed,
    read_keys,
    read_signing_key,
    read_verify_key,
    sign_folder,
)


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return write_pair(tmp_path)


def _signed(folder: Path, keys: KeyPair, content: bytes = bytes(range(64)), kind: str = "subnet") -> Path:
    folder.mkdir()
    (folder / "weights").write_bytes(content)
    (folder / "words.json").write_text("{}\n")
    record(folder)
    sign_folder(folder, kind, read_signing_key(keys.private))
    return folder


def _refused(folder: Path, keys: KeyPair | None, kind: str = "subnet", around: Path | None = None) -> str:
    """Check that a folder is refused in one line; return it."""
    with pytest.raises(UserError) as caught:
        check_signed(folder, kind, None if keys is None else read_verify_key(keys.public), around)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_signed_folder_passes_with_its_key_and_without(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", keys)
    check_signed(folder, "subnet", read_verify_key(keys.public))
    check_signed(folder, "subnet", None)


def test_the_same_folder_has_the_same_signature(tmp_path: Path, keys: KeyPair) -> None:
    first, second = (_signed(tmp_path / name, keys) for name in "ab")
    assert (first / SIGNATURE).read_bytes() == (second / SIGNATURE).read_bytes()


def test_what_is_signed_is_said_by_hand(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", keys)
    said = json.loads((folder / SIGNATURE).read_text())
    files = {name: [digest_of(folder / name)] for name in ("weights", "words.json")}
    statement = json.dumps({"beside": {}, "files": files, "kind": "subnet"}, separators=(",", ":"))
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(said["public_key"]))
    public.verify(bytes.fromhex(said["signature"]), b"fedpareto folder signature 1\0" + statement.encode())
    assert said["algorithm"] == "ed25519"


def test_what_is_not_signed_is_refused_with_a_key_alone(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", keys)
    (folder / SIGNATURE).unlink()
    assert f"{folder} is not signed" in _refused(folder, keys)
    check_signed(folder, "subnet", None)


def test_somebody_elses_key_is_refused(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", write_pair(tmp_path, "other", 2))
    assert "is signed with another key" in _refused(folder, keys)


def test_whoever_claims_the_right_key_does_not_sign_with_it(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", write_pair(tmp_path, "other", 2))
    said = json.loads((folder / SIGNATURE).read_text())
    said["public_key"] = read_verify_key(keys.public).hex
    (folder / SIGNATURE).write_text(json.dumps(said))
    assert "does not fit the files" in _refused(folder, keys)
    assert "does not fit the files" in _refused(folder, None)


def _alter(folder: Path, other: Path) -> None:
    del other
    (folder / "weights").write_bytes(bytes(64))


def _alter_with_digests(folder: Path, other: Path) -> None:
    _alter(folder, other)
    record(folder)


def _remove(folder: Path, other: Path) -> None:
    del other
    (folder / "weights").unlink()


def _remove_with_digest(folder: Path, other: Path) -> None:
    _remove(folder, other)
    (folder / DIGESTS).unlink()
    record(folder)


def _move_signature(folder: Path, other: Path) -> None:
    shutil.copy(other / SIGNATURE, folder / SIGNATURE)


def _move_digests(folder: Path, other: Path) -> None:
    shutil.copy(other / DIGESTS, folder / DIGESTS)


def _move_both(folder: Path, other: Path) -> None:
    _move_signature(folder, other)
    _move_digests(folder, other)


def _lose_digests(folder: Path, other: Path) -> None:
    del other
    (folder / DIGESTS).unlink()


def _foreign_digests(folder: Path, other: Path) -> None:
    del other
    (folder / DIGESTS).write_text("{}")


@pytest.mark.parametrize(
    "attack",
    [
        *(_alter, _alter_with_digests, _remove, _remove_with_digest, _move_signature, _move_digests, _move_both),
        *(_lose_digests, _foreign_digests),
    ],
)
def test_a_folder_that_was_tampered_with_is_refused_with_a_key_or_without(
    tmp_path: Path, keys: KeyPair, attack: Callable[[Path, Path], None]
) -> None:
    folder, other = _signed(tmp_path / "a", keys), _signed(tmp_path / "b", keys, b"other")
    attack(folder, other)
    for trusted in (keys, None):
        assert str(folder) in _refused(folder, trusted)


def test_a_file_too_many_is_refused_by_who_verifies(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", keys)
    (folder / "branch-x.safetensors").write_bytes(b"")
    assert "branch-x.safetensors is not among the signed files" in _refused(folder, keys)
    check_signed(folder, "subnet", None)


def test_a_signature_of_another_kind_is_refused(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", keys, kind="checkpoint")
    assert "is the signature of a checkpoint, not of a subnet" in _refused(folder, keys)
    said = json.loads((folder / SIGNATURE).read_text())
    (folder / SIGNATURE).write_text(json.dumps({**said, "kind": "subnet"}))
    assert "does not fit the files" in _refused(folder, keys)


def test_files_beside_a_folder_are_signed_for_too(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", keys)
    (tmp_path / "space.yaml").write_text("name: a\n")
    sign_folder(folder, "subnet", read_signing_key(keys.private), {"space.yaml": digest_of(tmp_path / "space.yaml")})
    check_signed(folder, "subnet", read_verify_key(keys.public), tmp_path)
    (tmp_path / "space.yaml").write_text("name: b\n")
    assert "space.yaml is not the file that" in _refused(folder, keys, around=tmp_path)
    (tmp_path / "space.yaml").unlink()
    assert "space.yaml is not the file that" in _refused(folder, keys, around=tmp_path)


@given(st.data())
def test_whatever_bytes_of_a_signature_change_it_is_refused_in_words(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("drawn")
    keys = write_pair(base)
    folder = _signed(base / "a", keys)
    whole = (folder / SIGNATURE).read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    changed = data.draw(
        st.one_of(
            st.binary(max_size=80),
            st.just(whole[:cut]),
            st.integers(1, 255).map(lambda mask: whole[:cut] + bytes([whole[cut] ^ mask]) + whole[cut + 1 :]),
            st.sampled_from(["format", "version", "algorithm", "kind", "beside", "public_key", "signature"]).flatmap(
                lambda name: st.sampled_from([None, 1, "", "00", {}, [], "é" * 64, "0" * 64, "0" * 128]).map(
                    lambda value: json.dumps({**json.loads(whole), name: value}).encode()
                )
            ),
        )
    )
    (folder / SIGNATURE).write_bytes(changed)
    try:
        same = json.loads(changed) == json.loads(whole)
    except (ValueError, RecursionError):
        same = False
    # White space, the case of hex digits and the like mean nothing.
    if not same and changed.lower() != whole.lower():
        _refused(folder, keys)
        _refused(folder, None)


def test_keys_that_openssl_makes_are_read(tmp_path: Path) -> None:
    private, public = tmp_path / "sign.pem", tmp_path / "sign.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    keys = KeyPair(private, public)
    check_signed(_signed(tmp_path / "a", keys), "subnet", read_verify_key(public))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_private_key_that_others_may_read_is_refused(keys: KeyPair, mode: int) -> None:
    keys.private.chmod(mode)
    with pytest.raises(SignatureError, match=f"private key of mode {mode:04o}.*chmod 600"):
        read_signing_key(keys.private)


def test_an_encrypted_key_is_opened_by_a_passphrase_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: KeyPair
) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
    path = write_private(tmp_path / "locked.pem", key, b"open sesame")
    monkeypatch.delenv(PASSPHRASE, raising=False)
    with pytest.raises(SignatureError, match=f"encrypted; give its passphrase in the variable {PASSPHRASE}"):
        read_signing_key(path)
    monkeypatch.setenv(PASSPHRASE, "wrong")
    with pytest.raises(SignatureError, match="is not opened by the passphrase") as caught:
        read_signing_key(path)
    assert "wrong" not in str(caught.value).split("passphrase in")[1].split(";")[1]
    monkeypatch.setenv(PASSPHRASE, "open sesame")
    assert read_signing_key(path).public.hex == read_verify_key(keys.public).hex
    # A passphrase for another key is no harm to one without.
    assert read_signing_key(keys.private).public.hex == read_verify_key(keys.public).hex


def test_what_is_no_key_of_ours_is_refused_in_words(tmp_path: Path, keys: KeyPair) -> None:
    curve = write_private(tmp_path / "curve.pem", ec.generate_private_key(ec.SECP256R1()))
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    empty.chmod(0o600)
    for path, words in (
        (curve, "of another kind than Ed25519"),
        (empty, "holds no private key in PEM"),
        (keys.public, "is a public key; sign with the private one"),
        (tmp_path / "nowhere", "No such file"),
        (tmp_path, "it is a folder"),
    ):
        with pytest.raises(UserError, match=words):
            read_signing_key(path)
    for path, words in (
        (keys.private, "is a private key; verify with its public half"),
        (empty, "holds no public key in PEM"),
        (tmp_path / "nowhere", "No such file"),
    ):
        with pytest.raises(UserError, match=words):
            read_verify_key(path)
    with pytest.raises(UserError, match="sign is empty, as if a variable was not set"):
        read_keys(" ", None)


def test_a_key_is_never_shown(keys: KeyPair) -> None:
    secret = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32).private_bytes_raw().hex()
    key = read_signing_key(keys.private)
    assert secret not in repr(key)
    assert "Ed25519" not in repr(key)


def test_without_the_package_a_signed_folder_is_refused_and_others_are_not(tmp_path: Path, keys: KeyPair) -> None:
    folder = _signed(tmp_path / "a", keys)
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from pathlib import Path\n"
        "from fedpareto.supernet.common.storage.signatures import check_signed\n"
        "check_signed(Path(sys.argv[1]), 'subnet', None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert "cryptography is not installed; install it with: pip install 'fedpareto[signing]'" in done.stderr
    (folder / SIGNATURE).unlink()
    subprocess.run([sys.executable, "-c", program, folder], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_key_that_may_not_be_read_is_refused_in_words(keys: KeyPair) -> None:
    keys.private.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        read_signing_key(keys.private)

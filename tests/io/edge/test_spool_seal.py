"""Files of the spool: bit-identical back, and nothing else is taken for one."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.io.edge.spool_seal import (
    PIECE_BYTES,
    Description,
    PairKey,
    Sealer,
    SealError,
    SharedKey,
    SpoolKey,
    Unsealer,
)

KEY = SharedKey(bytes(range(32)))
WHO = Description(
    calling_ae_title="CT1",
    called_ae_title="PACS",
    sop_class_uid="1.2",
    sop_instance_uid="1.2.3",
    transfer_syntax_uid="1",
)


def seal(path: Path, *parts: bytes, key: SpoolKey = KEY) -> None:
    with path.open("wb") as file:
        sealer = Sealer(file, key, WHO)
        for part in parts:
            sealer.write(part)
        sealer.finish()


def unseal(path: Path, key: SpoolKey = KEY) -> bytes:
    unsealer = Unsealer(path, key)
    try:
        assert unsealer.description == WHO
        return b"".join(piece for piece, _last in unsealer.pieces())
    finally:
        unsealer.close()


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=4))
def test_comes_back_bit_by_bit(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    path = tmp_path_factory.mktemp("seal") / "file"
    parts = [bytes([number]) * size for number, size in enumerate(sizes)]
    seal(path, *parts)
    assert unseal(path) == b"".join(parts)


def test_nothing_of_it_can_be_read(tmp_path: Path) -> None:
    seal(tmp_path / "a", b"PATIENT NAME" * 100)
    seal(tmp_path / "b", b"PATIENT NAME" * 100)
    first, second = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    assert b"PATIENT" not in first
    assert b"1.2.3" not in first
    assert first[24:] != second[24:]


@pytest.mark.parametrize("cut", [0, 10, 26, 60, -1, -(PIECE_BYTES // 2)])
def test_cut_file_is_noticed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "file"
    seal(path, b"x" * (2 * PIECE_BYTES))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(SealError):
        unseal(path)


@pytest.mark.parametrize("at", [0, 12, 30, 60, 5000, -1])
def test_changed_byte_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "file"
    seal(path, b"x" * 10_000)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(SealError):
        unseal(path)


def test_another_key_and_swapped_pieces_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seal(path, b"x" * PIECE_BYTES, b"y" * PIECE_BYTES, b"z")
    with pytest.raises(SealError, match="another key"):
        unseal(path, SharedKey(bytes(32)))
    content = path.read_bytes()
    head = 24 + 4 + int.from_bytes(content[24:28], "big")
    size = PIECE_BYTES + 20
    path.write_bytes(
        content[:head]
        + content[head + size : head + 2 * size]
        + content[head : head + size]
        + content[head + 2 * size :]
    )
    with pytest.raises(SealError):
        unseal(path)


def test_description_without_a_data_set_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        Sealer(file, KEY, WHO)._piece(b"{}", last=True)
    content = path.read_bytes()
    first = 24 + 4 + int.from_bytes(content[24:28], "big")
    path.write_bytes(content[:24] + content[first:])
    with pytest.raises(SealError):
        Unsealer(path, KEY)


def pair(private: X25519PrivateKey) -> PairKey:
    key = PairKey(private.public_key())
    key.private = private
    return key


def test_who_has_the_public_key_writes_and_only_the_private_one_reads(tmp_path: Path) -> None:
    private = X25519PrivateKey.generate()
    path = tmp_path / "file"
    seal(path, b"x" * (2 * PIECE_BYTES), key=PairKey(private.public_key()))
    with pytest.raises(SealError, match="the key that reads it is not here"):
        unseal(path, PairKey(private.public_key()))
    assert unseal(path, pair(private)) == b"x" * (2 * PIECE_BYTES)
    for other in (pair(X25519PrivateKey.generate()), KEY):
        with pytest.raises(SealError, match="another"):
            unseal(path, other)
    seal(path, b"x")
    with pytest.raises(SealError, match="another kind of key"):
        unseal(path, pair(private))


@pytest.mark.parametrize("at", [0, 9, 39, 41, 60, -1])
def test_changed_byte_is_noticed_by_a_private_key_too(tmp_path: Path, at: int) -> None:
    private = X25519PrivateKey.generate()
    path = tmp_path / "file"
    seal(path, b"x" * 1000, key=PairKey(private.public_key()))
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(SealError):
        unseal(path, pair(private))
    path.write_bytes(content[:8] + bytes(32) + content[40:])
    with pytest.raises(SealError):
        unseal(path, pair(private))

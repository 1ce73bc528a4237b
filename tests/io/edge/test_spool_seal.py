"""Files of the spool: bit-identical back, and nothing else is taken for one."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.io.edge.spool_seal import PIECE_BYTES, Description, Sealer, SealError, Unsealer

KEY = bytes(range(32))
WHO = Description(
    calling_ae_title="CT1",
    called_ae_title="PACS",
    sop_class_uid="1.2",
    sop_instance_uid="1.2.3",
    transfer_syntax_uid="1",
)


def seal(path: Path, *parts: bytes) -> None:
    with path.open("wb") as file:
        sealer = Sealer(file, KEY, WHO)
        for part in parts:
            sealer.write(part)
        sealer.finish()


def unseal(path: Path, key: bytes = KEY) -> bytes:
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
        unseal(path, bytes(32))
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

"""Packings: what goes in comes out, and what is damaged is said."""

import shutil
from pathlib import Path

import pytest

from dicomward.io.installation.compression import ENDINGS, PackingError, compressed, ending_of, unpacked

DATA = b"some bytes " * 10_000


def need_zstd(ending: str) -> None:
    if ending == ".tar.zst" and shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_packed_comes_back(tmp_path: Path, ending: str) -> None:
    need_zstd(ending)
    path = tmp_path / f"x{ending}"
    with path.open("wb") as output, compressed(output, ending) as stream:
        stream.write(DATA)
    assert (path.stat().st_size < len(DATA)) == (ending != ".tar")
    with unpacked(path) as stream:
        assert stream.read() == DATA


@pytest.mark.parametrize(
    ("name", "ending"), [("a.tar", ".tar"), ("a.tar.gz", ".tar.gz"), ("a.b.tgz", ".tgz"), ("a.tar.zst", ".tar.zst")]
)
def test_ending_says_the_packing(name: str, ending: str) -> None:
    assert ending_of(Path("/somewhere") / name) == ending


@pytest.mark.parametrize("name", ["backup", "backup.zip", "backup.gz", ".tar", "backup.tar.xz"])
def test_unknown_ending_names_the_known_ones(name: str) -> None:
    with pytest.raises(PackingError, match=r"\.tar, \.tar\.gz, \.tgz, \.tar\.zst"):
        ending_of(Path(name))


def test_without_zstd_another_packing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with (
        (tmp_path / "x").open("wb") as output,
        pytest.raises(PackingError, match=r"use \.tar\.gz"),
        compressed(output, ".tar.zst"),
    ):
        raise AssertionError("it must not begin")


def test_zstd_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: "/bin/false")
    path = tmp_path / "x"
    with (
        path.open("wb") as output,
        pytest.raises(PackingError, match="is the disk full"),
        compressed(output, ".tar.zst"),
    ):
        pass
    path.write_bytes(b"\x28\xb5\x2f\xfd nonsense")
    with pytest.raises(PackingError, match="is damaged"), unpacked(path) as stream:
        assert stream.read() == b""

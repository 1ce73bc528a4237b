"""`dicomward device bundle`: a PKCS#12 file that OpenSSL opens with the passphrase that was printed."""

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from tests.cli.conftest import Run
from tests.io.enrolment_place import Place


@pytest.mark.parametrize("old", [False, True])
def test_bundle_opens_with_its_passphrase(run: Run, place: Place, tmp_path: Path, old: bool) -> None:
    name, out = f"nm{old:d}", tmp_path / "device.p12"
    more = ["--old"] if old else []
    arguments = ("--aet", name.upper(), "--role", "modality", "--network", "127.0.0.1/32", "--out", out, *more)
    done = run("device", "bundle", name, *arguments, "--json")
    assert done.code == 0, done.err
    bundle = load_pkcs12(out.read_bytes(), done.json["passphrase"].encode())
    assert bundle.cert is not None
    assert bundle.cert.certificate.subject.rfc4514_string() == f"CN={name}"
    assert len(bundle.additional_certs) >= 2
    shown = subprocess.run(
        [
            "openssl",
            "pkcs12",
            "-in",
            out,
            "-nokeys",
            "-passin",
            f"pass:{done.json['passphrase']}",
            *(["-legacy"] * old),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"CN = {name}" in shown.stdout
    assert run("device", "bundle", name, "--out", out).code == 1
    assert (
        "--network" in run("device", "bundle", "nm9", "--aet", "N", "--role", "modality", "--out", tmp_path / "x").err
    )

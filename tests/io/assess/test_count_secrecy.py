"""A process that counts leaves no core dump and is closed to debuggers."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from dicomward.io.assess import count_secrecy


def test_core_dumps_are_off_and_debuggers_out() -> None:
    script = (
        "import ctypes, resource\n"
        "from dicomward.io.assess.count_secrecy import forbid_dumps\n"
        "forbid_dumps()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "(0, 0) 0\n"


def test_kernel_that_does_not_agree_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = SimpleNamespace(prctl=lambda *arguments: -1)
    monkeypatch.setattr("ctypes.CDLL", lambda *arguments, **options: refusing)
    monkeypatch.setattr("resource.setrlimit", lambda *arguments: None)
    with pytest.raises(count_secrecy.NotSecret, match="prctl failed"):
        count_secrecy.forbid_dumps()

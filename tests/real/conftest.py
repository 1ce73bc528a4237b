"""Fixtures of the tests with real peers."""

import os

import pytest

pytest.register_assert_rewrite("tests.real.matrix")

from tests.real.matrix import cases  # noqa: E402  after the line above
from tests.real.pki import Authority  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder: `-m "not real"` leaves it out."""
    for item in items:
        if "tests/real/" in item.nodeid:
            item.add_marker(pytest.mark.real)


def pytest_report_header() -> str:
    """Say where the peers listen."""
    alone = os.environ.get("DICOMWARD_LOOPBACK_ONLY") == "yes"
    return (
        "real peers: in a network namespace of their own"
        if alone
        else "real peers: on this machine's network, some on all its addresses (tools/loopback_only.py prevents it)"
    )


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return an authority that no gateway trusts."""
    return Authority("Stranger CA", tmp_path_factory.mktemp("pki"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give the matrix its cases: the test file names the server."""
    if "case" in metafunc.fixturenames and hasattr(metafunc.module, "SERVER"):
        pairs = cases(metafunc.module.SERVER)
        metafunc.parametrize("case", pairs, ids=[f"{stack.name}-{service}" for stack, service in pairs])

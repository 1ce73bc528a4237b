"""A gateway directory for tests, made once by the code under test and copied; and what answers as a gateway."""

import atexit
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from dicomward.identity.registry import Archive, Endpoint
from dicomward.io.control import Answer, ControlServer
from dicomward.io.installation.new_directory import NewGateway, make_gateway_directory
from dicomward.policy import default_policy_text
from dicomward.settings import ListenAddress, Settings, load_settings

PACS = Archive(
    name="PACS",
    ae_title="PACS",
    calling_ae_titles=("PACS",),
    endpoint=Endpoint(host="127.0.0.1", port=4242),
    networks=("127.0.0.0/8",),
)


def now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  certificates are compared with the real clock


def new_gateway(archive: Archive = PACS, **changes: object) -> NewGateway:
    values: dict[str, object] = {
        "archive": archive,
        "listen": ListenAddress(host="127.0.0.1", port=0),
        "archive_listen": ListenAddress(host="127.0.0.1", port=0),
        "hosts": (),
        "policy": default_policy_text(),
        "operator": "anna",
        **changes,
    }
    return NewGateway(**values)  # type: ignore[arg-type]


@cache
def _template() -> Path:
    # RSA keys take a second to make; tests only need their own copies.
    parent = Path(mkdtemp(prefix="dicomward-test-"))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    make_gateway_directory(parent / "gateway", new_gateway(), now())
    return parent / "gateway"


def copy_directory(to: Path) -> Settings:
    """Return the settings of a fresh gateway directory at `to`."""
    shutil.copytree(_template(), to)
    to.chmod(0o700)
    return load_settings(to / "dicomward.toml")


@contextmanager
def running_gateway(settings: Settings, *answers: Answer) -> Iterator[list[Answer]]:
    """Answer commands as a gateway does; yields what it was asked. The last answer is repeated."""
    asked: list[Answer] = []
    lock = threading.Lock()

    def handle(request: Answer) -> Answer:
        with lock:
            asked.append(request)
            return answers[min(len(asked), len(answers)) - 1]

    server = ControlServer(settings.gateway.state_directory, handle)
    server.start()
    try:
        yield asked
    finally:
        server.stop()

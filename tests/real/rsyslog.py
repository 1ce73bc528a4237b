"""A real rsyslog on loopback: RFC 5425 with mutual TLS, each message on a line of a file."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.real.pki import Credentials
from tests.real.processes import Child, PeerError, free_port

RSYSLOGD: Final = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"

_CONFIGURATION: Final = """
global(workDirectory="{directory}" maxMessageSize="64k" debug.onShutdown="off"
       defaultNetstreamDriver="gtls"
       defaultNetstreamDriverCAFile="{authority}"
       defaultNetstreamDriverCertFile="{certificate}"
       defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="json" type="list" option.jsonf="on") {{
  property(outname="pri" name="pri" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="msg" name="msg" format="jsonf")
}}
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="all")
ruleset(name="all") {{
  action(type="omfile" file="{output}" template="json" flushOnTXEnd="on" asyncWriting="off")
}}
"""


@dataclass(frozen=True)
class Received:
    """One message as rsyslog has parsed it."""

    pri: str
    msgid: str
    host: str
    app: str
    msg: str

    @property
    def json(self) -> Any:
        return json.loads(self.msg)


class Rsyslog:
    """One receiver. It may be stopped and started again on the same port."""

    def __init__(self, directory: Path, credentials: Credentials) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self.port = free_port()
        self.output = directory / "received.jsonl"
        self._starts = 0
        self._child: Child | None = None
        self._configuration = directory / "rsyslog.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(
                directory=directory,
                authority=credentials.authority,
                certificate=credentials.certificate,
                key=credentials.key,
                port=self.port,
                output=self.output,
            )
        )

    def start(self) -> None:
        self._starts += 1
        command = [RSYSLOGD, "-n", "-iNONE", "-f", str(self._configuration)]
        self._child = Child("rsyslogd", command, self._directory / f"rsyslogd-{self._starts}.log")
        self._child.wait_until_listening(self.port)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def received(self) -> list[Received]:
        if not self.output.exists():
            return []
        whole = self.output.read_text("utf-8").split("\n")[:-1]
        return [
            Received(each["pri"], each["msgid"], each["host"], each["app"], each["msg"].lstrip("\ufeff "))
            for each in map(json.loads, whole)
        ]

    def wait_for(self, count: int, msgid: str, seconds: float = 20.0) -> list[Received]:
        """Wait until so many messages of a kind are there; return all of that kind."""
        self.wait_until(lambda: len(self.of(msgid)) >= count, f"{count} messages {msgid}", seconds)
        return self.of(msgid)

    def wait_until(self, holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
        """Look again and again until something holds; another process can't wake us."""
        deadline = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > deadline:
                log = "" if self._child is None else self._child.tail()
                raise PeerError(f"not within {seconds} s: {what}\n{log}")
            time.sleep(0.05)

    def of(self, msgid: str) -> list[Received]:
        return [each for each in self.received() if each.msgid == msgid]

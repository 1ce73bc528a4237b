"""Keys of the spools of edge agents: each device gets its own over mutual TLS, and nobody keeps a list of them.

A device's key is derived from one secret of this server and the device's name, so it stays the same when its
certificate is renewed. It is an X25519 private key; the agent keeps the public half, and asks for this one again.
"""

import base64
import json
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dicomward.audit.event import AuditEvent, EnrolmentChanged
from dicomward.enrolment.http import HttpError, Request, Response
from dicomward.identity.registry import RegistrySnapshot
from dicomward.io.ca.local import write_new_file
from dicomward.io.enrolment.presented import identify_presented

FILE_NAME: Final = "edge-spool.secret"
_SECRET_BYTES: Final = 32


class SpoolKeys:
    """Answers requests for spool keys. `read` gives the registry as it is now."""

    def __init__(
        self,
        directory: Path,
        read: Callable[[], RegistrySnapshot],
        record: Callable[[AuditEvent], str | None],
        clock: Callable[[], datetime],
    ) -> None:
        self._path = directory / FILE_NAME
        self._read, self._record, self._clock = read, record, clock

    def answer(self, request: Request) -> Response:
        """Return the key of the device whose certificate was shown. Raises EnrolmentRefusedError, HttpError."""
        found = identify_presented(self._read(), request, self._clock(), expiry_grace=timedelta(0))
        name = found.device.name
        key = self._key_of(name)
        event = EnrolmentChanged(
            operator="enrolment", action="spool-key", device=name, address=request.peer.address, detail="edge agent"
        )
        problem = self._record(event)
        if problem is not None:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "it can't be recorded now; try again later")
        told = {"device": name, "key": base64.b64encode(key).decode("ascii")}
        return Response(content_type="application/json", body=json.dumps(told).encode())

    def _key_of(self, device: str) -> bytes:
        try:
            secret = self._secret()
        except OSError as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, "the server's secret can't be read") from error
        info = b"dicomward edge spool 1\0" + device.encode()
        return HKDF(algorithm=SHA256(), length=_SECRET_BYTES, salt=None, info=info).derive(secret)

    def _secret(self) -> bytes:
        """Return the secret, made when it is first needed. Raises OSError."""
        if not self._path.exists():
            try:
                write_new_file(self._path, os.urandom(_SECRET_BYTES), 0o600)
            except FileExistsError:
                # Another request was faster.
                pass
        secret = self._path.read_bytes()
        if len(secret) != _SECRET_BYTES:
            raise OSError(f"{self._path} is not {_SECRET_BYTES} bytes long")
        return secret

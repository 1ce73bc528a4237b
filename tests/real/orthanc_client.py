"""Orthanc as a client: it calls other archives by its own stack, told so over its web interface on loopback."""

import json
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.real.clients import Outcome, Route, _Unsupported
from tests.real.processes import LOOPBACK
from tests.real.samples import Sample
from tests.real.servers import Orthanc


class OrthancClient(_Unsupported):
    """One Orthanc for each operation, since its own title is a setting."""

    name = "orthanc"
    services = frozenset({"echo", "store", "find"})

    def echo(self, route: Route) -> Outcome:
        def act(call: Callable[[str, str, Any], Any]) -> tuple[str, ...]:
            call("POST", "/modalities/peer/echo", {"Timeout": 20})
            return ()

        return self._with(route, act)

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        def act(call: Callable[[str, str, Any], Any]) -> tuple[str, ...]:
            kept = [call("POST", "/instances", each.path.read_bytes())["ID"] for each in samples]
            told = call("POST", "/modalities/peer/store", {"Resources": kept, "Synchronous": True})
            if told["FailedInstancesCount"]:
                raise urllib.error.URLError(f"{told['FailedInstancesCount']} instances failed")
            return ()

        return self._with(route, act)

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        def act(call: Callable[[str, str, Any], Any]) -> tuple[str, ...]:
            query = {key: value for key, value in keys.items() if key != "QueryRetrieveLevel"}
            told = call("POST", "/modalities/peer/query", {"Level": "Study", "Query": query})
            answers = call("GET", f"{told['Path']}/answers?expand&simplify", None)
            return tuple(sorted(json.dumps(each, sort_keys=True) for each in answers))

        return self._with(route, act)

    def _with(self, route: Route, act: Callable[[Callable[[str, str, Any], Any]], tuple[str, ...]]) -> Outcome:
        with tempfile.TemporaryDirectory() as directory, route.plain() as port:
            orthanc = Orthanc(route.calling_ae_title, Path(directory) / "scu", modalities={})
            base = f"http://{LOOPBACK}:{orthanc.http_port}"

            def call(method: str, path: str, body: Any) -> Any:
                data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
                request = urllib.request.Request(base + path, data=data, method=method)  # noqa: S310  our own server
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    text = answer.read()
                return json.loads(text) if text else None

            try:
                peer = {"AET": route.called_ae_title, "Host": LOOPBACK, "Port": port}
                call("PUT", "/modalities/peer", peer)
                return Outcome(succeeded=True, statuses=(), matches=act(call))
            except urllib.error.URLError as error:
                return Outcome(succeeded=False, statuses=(str(error),))
            finally:
                orthanc.stop()

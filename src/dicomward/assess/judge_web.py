"""The verdict on each control of an HTTP port: DICOMweb without a token, web administration, TLS.

Rules of this file: 401 and 403 are refusals that were seen; 404 says that the thing isn't there; a redirect is not
followed, so it is INCONCLUSIVE unless it leads to a login.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from dicomward.assess.isolation import Verdict
from dicomward.assess.judge import judge_tls
from dicomward.assess.observation import Control, ControlResult
from dicomward.assess.seen import TlsFacts, WebAnswer, WebSeen

_REFUSED: Final = (401, 403, 407)
_LOGIN_WORDS: Final = ("login", "auth", "signin", "sso", "saml", "oidc", "realms")
_TLS_CONTROLS: Final = frozenset({Control.TLS_OFFERED, Control.TLS_REQUIRED, Control.CLIENT_CERTIFICATE})


def judge_web(
    seen: WebSeen, *, tls: TlsFacts | None, names: Collection[str], now: datetime
) -> tuple[ControlResult, ...]:
    """Return the verdicts of an HTTP port; those on TLS are about its certificate and version only."""
    results = [
        each
        for each in judge_tls(tls, names=names, now=now, host_offers_tls=False, stopped=seen.stopped)
        if each.control not in _TLS_CONTROLS and tls is not None
    ]
    if tls is not None and tls.wants_certificate:
        why = "strangers get nothing: TLS wants a client certificate"
        judgements = dict.fromkeys((Control.DICOMWEB_TOKEN, Control.WEB_ADMINISTRATION), (Verdict.PASS, why))
        judgements[Control.CLIENT_CERTIFICATE] = (Verdict.PASS, "without one the connection ends")
    else:
        judgements = {
            Control.DICOMWEB_TOKEN: _judge(
                [each for each in seen.answers if each.kind == "dicomweb"], seen, "DICOMweb"
            ),
            Control.WEB_ADMINISTRATION: _judge(
                [each for each in seen.answers if each.kind in ("orthanc", "admin")], seen, "web administration"
            ),
        }
    results += [ControlResult(control=key, verdict=verdict, why=why) for key, (verdict, why) in judgements.items()]
    return tuple(results)


def _judge(answers: Sequence[WebAnswer], seen: WebSeen, name: str) -> tuple[Verdict, str]:
    if not answers:
        return Verdict.NOT_RUN, seen.stopped or f"{name} was not asked for"
    for each in answers:
        if each.looks_right:
            return Verdict.FAIL, f"{each.path} answers without a login (status {each.status})"
    for each in answers:
        if each.status in _REFUSED:
            return Verdict.PASS, f"{each.path} wants a login (status {each.status})"
        if each.redirect and any(word in each.redirect.lower() for word in _LOGIN_WORDS):
            return Verdict.PASS, f"{each.path} sends to a login"
    unclear = [each for each in answers if each.status != 404]
    if unclear:
        first = unclear[0]
        what = f"status {first.status}" if first.status else first.detail or "no HTTP"
        if first.redirect:
            what += ", a redirect that is not followed"
        return Verdict.INCONCLUSIVE, f"{first.path}: {what}"
    return Verdict.NOT_RUN, f"there is no {name} at the usual places"

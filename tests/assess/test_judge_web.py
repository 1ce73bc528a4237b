"""Verdicts on HTTP ports."""

from dataclasses import replace

import pytest

from dicomward.assess.isolation import Verdict
from dicomward.assess.judge_web import judge_web
from dicomward.assess.observation import Control
from dicomward.assess.seen import TlsFacts, WebAnswer, WebSeen
from tests.assess.builders import NOW, TLS


def verdicts(seen: WebSeen, tls: TlsFacts | None = None) -> dict[Control, Verdict]:
    return {each.control: each.verdict for each in judge_web(seen, tls=tls, names=("10.0.0.1",), now=NOW)}


def web(*answers: WebAnswer) -> WebSeen:
    return WebSeen(answers=answers)


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ((WebAnswer(kind="dicomweb", path="/rs", status=200, looks_right=True),), Verdict.FAIL),
        ((WebAnswer(kind="dicomweb", path="/rs", status=401),), Verdict.PASS),
        ((WebAnswer(kind="dicomweb", path="/rs", status=404), WebAnswer(kind="dicomweb", path="/d", status=403)),
         Verdict.PASS),
        ((WebAnswer(kind="dicomweb", path="/rs", status=302, redirect="https://sso.example/LOGIN"),), Verdict.PASS),
        ((WebAnswer(kind="dicomweb", path="/rs", status=302, redirect="/elsewhere"),), Verdict.INCONCLUSIVE),
        ((WebAnswer(kind="dicomweb", path="/rs", status=500),), Verdict.INCONCLUSIVE),
        ((WebAnswer(kind="dicomweb", path="/rs", status=0, detail="closed"),), Verdict.INCONCLUSIVE),
        ((WebAnswer(kind="dicomweb", path="/rs", status=404),), Verdict.NOT_RUN),
        ((), Verdict.NOT_RUN),
    ],
)  # fmt: skip
def test_dicomweb(answers: tuple[WebAnswer, ...], verdict: Verdict) -> None:
    assert verdicts(web(*answers))[Control.DICOMWEB_TOKEN] is verdict


def test_administration_is_apart_from_dicomweb() -> None:
    found = verdicts(web(WebAnswer(kind="orthanc", path="/system", status=200, looks_right=True)))
    assert found == {Control.DICOMWEB_TOKEN: Verdict.NOT_RUN, Control.WEB_ADMINISTRATION: Verdict.FAIL}


def test_https_has_verdicts_on_its_certificate() -> None:
    found = verdicts(web(), TLS)
    assert found[Control.CERTIFICATE_KEY] is Verdict.PASS
    assert Control.TLS_OFFERED not in found


def test_client_certificate_closes_the_web() -> None:
    found = verdicts(WebSeen(), replace(TLS, wants_certificate=True))
    assert found[Control.DICOMWEB_TOKEN] is found[Control.WEB_ADMINISTRATION] is Verdict.PASS
    assert found[Control.CLIENT_CERTIFICATE] is Verdict.PASS

"""HTML and PDF of a report: whole, closed against the network, and safe against what servers say of themselves."""

import re
import sys
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from html.parser import HTMLParser

import pytest

from dicomward.assess.observation import Count, Finding, ProductGuess, ServerObservation
from dicomward.assess.report_model import Options, Report, RunFacts, build_report
from dicomward.io.assess import report_render
from dicomward.io.assess.report_render import RendererMissingError, read_world, render_html, render_pdf
from tests.assess.report_runs import FACTS, GUARDED, ORTHANC, SERVERS, counts, leaking

NOW = datetime(2026, 11, 25, 3, 0, tzinfo=UTC)
WORLD = read_world()
EVIL = '<script>alert(1)</script>"\'#import "x"; $x$ {{ 7*7 }}'


class Page(HTMLParser):
    """Elements and text of a page; complains about elements that aren't closed in their order."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report_of(*servers: ServerObservation, options: Options | None = None, facts: RunFacts = FACTS) -> Report:
    return build_report(facts, servers, WORLD, options or Options())


def html_of(*servers: ServerObservation, options: Options | None = None, facts: RunFacts = FACTS) -> str:
    return render_html(report_of(*servers, options=options, facts=facts), WORLD, NOW)


def test_page_is_whole_and_says_what_was_found() -> None:
    page = Page(html_of(*SERVERS))
    for text in (
        "DICOM exposure assessment: Regional Hospitals North",
        "Authorised by RN-2026/117",
        "at least 17,126,239",
        "South Africa",
        "Anyone who reaches the port reads patients' records",
        "CVE-2023-33466",
        "Report made 2026-11-25 03:00 UTC",
    ):
        assert text in page.text
    assert "Not finished" not in page.text
    assert len([1 for tag, _ in page.tags if tag == "svg"]) > 1


def test_page_loads_nothing_and_runs_nothing() -> None:
    text = html_of(*SERVERS)
    page = Page(text)
    assert not {"script", "iframe", "object", "embed", "img", "form", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action"):
            assert attributes.get(name, "data:,") == "data:,"
    (policy,) = (each["content"] or "" for tag, each in page.tags if each.get("http-equiv"))
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "url(" not in style
    assert "@import" not in style


def test_what_a_server_says_is_text() -> None:
    server = leaking(
        "192.0.2.1",
        "DE",
        counts(9, personal=3, patients=5),
        product=replace(ORTHANC, product=EVIL),
        host=EVIL,
        site=EVIL,
    )
    server = replace(server, findings=(Finding(id="DWA-FIND-OPEN", evidence=EVIL),))
    text = html_of(server, facts=replace(FACTS, owner=EVIL))
    assert "<script" not in text
    assert Page(text).text.count(EVIL) >= 5


def test_shared_page_says_so() -> None:
    page = Page(html_of(*SERVERS, options=Options(shared=True, addresses=False)))
    assert "counts of fewer than five are shown as <5" in page.text
    assert "servers have numbers in the place of addresses" in page.text
    assert "203.0.113" not in page.text
    assert "numbers in the place" not in Page(html_of(*SERVERS, options=Options(shared=True, addresses=True))).text


def test_unfinished_run_is_said() -> None:
    page = Page(html_of(*SERVERS, facts=replace(FACTS, hosts_done=17)))
    assert "Not finished: 17 of 512 addresses" in page.text
    assert "Not finished" in Page(html_of(*SERVERS, facts=replace(FACTS, ended_at=""))).text


def test_page_of_nothing_is_whole() -> None:
    page = Page(html_of(facts=RunFacts()))
    assert "No DICOM server answered" in page.text
    assert "Nothing was found open" in page.text


def test_run_of_several_days_says_both() -> None:
    page = Page(html_of(facts=replace(FACTS, ended_at="2026-11-26T01:00:00+00:00")))
    assert "Assessed 2026-11-24 to 2026-11-26" in page.text


def test_map_of_servers_says_servers() -> None:
    text = html_of(leaking("192.0.2.1", "DE", None))
    assert "Servers that were reached, by country" in text
    assert "<title>Germany: 1 servers</title>" in text


def test_large_run_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_render, "MOST_PLACES", 2)
    monkeypatch.setattr(report_render, "MOST_SERVERS", 3)
    text = Page(html_of(*SERVERS)).text
    assert "… and 4 more: the CSV and the JSON have all." in text
    assert "… and 6 more: the CSV and the JSON have all." in text
    assert render_pdf(report_of(*SERVERS), WORLD, NOW).startswith(b"%PDF-")


def test_pdf_takes_what_servers_say_as_text() -> None:
    server = leaking("192.0.2.1", "DE", None, product=ProductGuess(product=EVIL), host=EVIL)
    server = replace(server, findings=(Finding(id="DWA-FIND-OPEN", evidence=EVIL),))
    assert render_pdf(report_of(server, GUARDED), WORLD, NOW).startswith(b"%PDF-")
    assert render_pdf(report_of(facts=RunFacts()), WORLD, NOW).startswith(b"%PDF-")


def test_missing_typst_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(RendererMissingError, match=r"pip install 'dicomward\[pdf\]'"):
        render_pdf(report_of(*SERVERS), WORLD, NOW)


def test_several_files_are_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typst.compile", lambda *_args, **_options: [b"%PDF-1", b"%PDF-2"])
    with pytest.raises(TypeError, match="several files"):
        render_pdf(report_of(), WORLD, NOW)


def test_servers_without_counts_come_last() -> None:
    few = replace(GUARDED, port=104, counts=counts(7, personal=1, patients=1))
    no_records = replace(GUARDED, port=105, counts=replace(counts(7, personal=1, patients=1), records=None))
    some = replace(GUARDED, port=106, counts=replace(counts(7, personal=1, patients=1), records=Count(value=900)))
    text = html_of(GUARDED, few, no_records, some)
    servers = text[text.index(">Servers</h2>") :]
    order = [servers.index(f"198.51.100.9 port {port}") for port in (106, 104, 105, 2762)]
    assert order[:2] == sorted(order)[:2]

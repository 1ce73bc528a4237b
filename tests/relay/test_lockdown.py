"""A locked site: what is of the clinical floor goes on, everything else ends or never begins."""

from dataclasses import replace

from dicomward.audit.event import OperationDenied
from dicomward.relay.inputs import Leg
from dicomward.vocab.reason import ReasonCode
from tests.relay.wire import c_find_rq, c_move_rq, c_store_rq, identifier, image
from tests.relay.world import REGISTRY, FakeWorld, Line, established


def locked(*sites: str) -> FakeWorld:
    world = FakeWorld()
    world.locked_sites = frozenset(sites)
    return world


def last_denial(line: Line) -> OperationDenied:
    return next(event for event in reversed(line.records) if isinstance(event, OperationDenied))


def test_a_new_association_at_a_locked_site_has_the_floor_only() -> None:
    line = established(locked("main"))
    line.say(Leg.REQUESTOR, 3, c_store_rq(1, instance="1.2.3"), image())
    assert len(line.said(Leg.ACCEPTOR)) == 1
    elsewhere = established(locked("other"), calling="WS1")
    elsewhere.say(Leg.REQUESTOR, 5, c_find_rq(1), identifier())
    assert len(elsewhere.said(Leg.ACCEPTOR)) == 1


def test_an_open_association_is_narrowed_with_its_next_operation() -> None:
    world = FakeWorld()
    line = established(world, calling="WS1")
    world.locked_sites = frozenset({"main"})
    line.say(Leg.REQUESTOR, 5, c_find_rq(1), identifier())
    assert line.said(Leg.ACCEPTOR) == []
    denied = last_denial(line)
    assert denied.reason is ReasonCode.CLINICAL_FLOOR_ONLY
    assert "site-lockdown" in (denied.detail or "")


def test_nobody_elsewhere_may_move_to_a_locked_site() -> None:
    world = FakeWorld()
    devices = tuple(replace(each, site="west") if "WS1" in each.ae_titles else each for each in REGISTRY.devices)
    line = established(world, calling="WS1")
    world.registry = replace(REGISTRY, devices=devices)
    world.locked_sites = frozenset({"west"})
    line.say(Leg.REQUESTOR, 7, c_move_rq(1, destination="WS1"), identifier())
    assert line.said(Leg.ACCEPTOR) == []
    assert "at the destination" in (last_denial(line).detail or "")


def test_only_who_reads_just_now_is_reading() -> None:
    line = established(calling="WS1")
    assert not line.relay.reads_at(lambda site: site == "main")
    line.say(Leg.REQUESTOR, 5, c_find_rq(1), identifier())
    assert line.relay.reads_at(lambda site: site == "main")
    assert not line.relay.reads_at(lambda site: site == "west")
    scanner = established()
    scanner.say(Leg.REQUESTOR, 3, c_store_rq(1, instance="1.2.3"), image())
    assert not scanner.relay.reads_at(lambda site: site == "main")

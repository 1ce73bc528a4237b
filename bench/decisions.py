"""P9: one policy decision at 500 rules, with 100 and with 5,000 devices, beside Cedar with everything parsed once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

from bench.estimates import Ratio, percentile, ratio_of_pairs
from bench.measure import BenchError
from bench.plan import Bench
from bench.policies import (
    BenchRequest,
    cedar_entities,
    cedar_request,
    make_devices,
    make_requests,
    make_rules,
)
from bench.report import Section, say

RULES = 500
DEVICES = (100, 5_000)
REQUESTS = 2_000
# A Tuesday morning: no rule of the policy names a time, the request must have one.
AT = datetime(2026, 1, 6, 10, 0, tzinfo=UTC)

Decide = Callable[[], bool]


@dataclass(slots=True, kw_only=True)
class Timing:
    """Microseconds of single decisions, one list a round."""

    rounds: list[list[float]]

    @property
    def medians(self) -> list[float]:
        return [median(each) for each in self.rounds]

    @property
    def p99s(self) -> list[float]:
        return [percentile(each, 0.99) for each in self.rounds]


def policy_text(count: int) -> str:
    """Return the policy of `count` rules in our language."""
    return "version = 1\n\n" + "\n".join(rule.toml() for rule in make_rules(count))


def our_decisions(rules: int, requests: Sequence[BenchRequest]) -> list[Decide]:
    """Return one call a request; the policy is loaded once."""
    from dicomward.policy import OperationRequest, evaluate
    from dicomward.policy.load import load_policy
    from dicomward.vocab.dimse import OPERATION_BY_LABEL
    from dicomward.vocab.principal import Assurance, Principal

    policy = load_policy(policy_text(rules), source="bench")

    def call(request: BenchRequest) -> Decide:
        principal = Principal(
            device=request.device.name,
            calling_ae_title="BENCH",
            role=request.device.role,
            site=request.device.site,
            assurance=Assurance.TLS_DEVICE,
            address="127.0.0.1",
        )
        asked = OperationRequest(
            principal=principal,
            archive="main",
            operation=OPERATION_BY_LABEL[request.operation],
            sop_class_uid=request.sop_class_uid,
            move_destination=request.move_destination,
            at=AT,
        )
        return lambda: evaluate(policy, asked).allowed

    return [call(request) for request in requests]


def cedar_decisions(rules: int, requests: Sequence[BenchRequest], devices: int) -> list[Decide]:
    """Return one call a request; policies and entities are parsed once."""
    try:
        import cedarpy
    except ImportError as error:
        raise BenchError(f"Cedar cannot be compared ({error}): install cedarpy (pip install '.[test]')") from error
    policies = cedarpy.PolicySet.from_str("".join(rule.cedar() for rule in make_rules(rules)))
    entities = cedarpy.Entities.from_json_str(cedar_entities(make_devices(devices, max(1, rules // 10))))

    def call(request: BenchRequest) -> Decide:
        asked = cedar_request(request)
        return lambda: bool(cedarpy.is_authorized(asked, policies, entities).allowed)

    return [call(request) for request in requests]


def time_each(decisions: Sequence[Decide]) -> list[float]:
    """Return the microseconds of each call."""
    clock, times = time.perf_counter_ns, []
    for decide in decisions:
        began = clock()
        decide()
        times.append((clock() - began) / 1000)
    return times


def p9(bench: Bench) -> None:
    """Time single decisions in turning order, after a check that both languages decide alike on every request."""
    ways: dict[str, list[Decide]] = {}
    for devices in DEVICES:
        requests = make_requests(make_devices(devices, RULES // 10), REQUESTS)
        mine, cedar = our_decisions(RULES, requests), cedar_decisions(RULES, requests, devices)
        for request, ours, theirs in zip(requests, mine, cedar, strict=True):
            if ours() != theirs():
                raise BenchError(f"dicomward and Cedar do not agree on {request}: they do not do the same work")
        ways[f"dicomward, {devices:,} devices"] = mine
        ways[f"Cedar, {devices:,} devices"] = cedar
    timings = {name: Timing(rounds=[]) for name in ways}
    names = list(ways)
    for number in range(bench.plan.rounds_decisions + 1):
        turned = number % len(names)
        for name in (*names[turned:], *names[:turned]):
            times = time_each(ways[name])
            if number:
                timings[name].rounds.append(times)
    bench.add(_section(timings))


def _section(timings: dict[str, Timing]) -> Section:
    section = Section(
        target="P9",
        title=f"one policy decision at {RULES} rules",
        columns=("way", "median µs", "p99 µs", "Cedar ÷ dicomward (medians) [95 %]"),
    )
    for name, timing in timings.items():
        rival = name.replace("dicomward", "Cedar")
        speed: Ratio | None = None
        if rival != name:
            speed = ratio_of_pairs(timings[rival].medians, timing.medians)
        section.samples[f"{name} median µs"], section.samples[f"{name} p99 µs"] = timing.medians, timing.p99s
        shown = f"**{name}**" if rival != name else name
        section.lines.append(
            (shown, f"{median(timing.medians):.1f}", f"{median(timing.p99s):.1f}", str(speed) if speed else "")
        )
    few, many = (median(timings[f"dicomward, {devices:,} devices"].p99s) for devices in DEVICES)
    section.require("p99 ≤ 20 µs", f"{few:.1f} µs", few <= 20)
    section.require("p99 ≤ 20 µs with 5,000 devices", f"{many:.1f} µs", many <= 20)
    section.notes.append(
        f"{REQUESTS:,} requests a round, {len(timings['dicomward, 100 devices'].rounds)} rounds; p99 is the median of"
        " the rounds' p99. Both gave the same answer to every request. Cedar: cedarpy, PolicySet and Entities parsed"
        " once, structured requests, what its scopes can say is said there."
    )
    say(", ".join(f"{name} {median(timing.medians):.1f} µs" for name, timing in timings.items()))
    return section

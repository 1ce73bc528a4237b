"""Metrics as values, and their text for Prometheus (exposition format 0.0.4).

Who has something to tell registers a source: it is called at a scrape, in the scrape's thread, and returns families.
Nothing here costs an operation anything. Names and labels are promises: docs/monitoring.md lists all of them.
"""

import logging
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_log = logging.getLogger(__name__)

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class MetricKind(StrEnum):
    """What Prometheus calls the type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; `suffix` is for the parts of a histogram."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one name."""

    name: str
    kind: MetricKind
    help: str
    samples: Sequence[Sample]


Source = Callable[[], Iterable[Family]]


def gauge(name: str, help_text: str, value: float, /, **labels: str) -> Family:
    """Return a gauge with one sample."""
    return Family(name, MetricKind.GAUGE, help_text, (Sample(value, labels),))


def counter(name: str, help_text: str, value: float, /, **labels: str) -> Family:
    """Return a counter with one sample; its name ends with `_total`."""
    return Family(name, MetricKind.COUNTER, help_text, (Sample(value, labels),))


def labelled(
    name: str, kind: MetricKind, help_text: str, label: str | tuple[str, ...], values: Mapping[object, float]
) -> Family:
    """Return a family with a sample for each key: a text for one label, a tuple of texts for several."""
    if isinstance(label, str):
        samples = [Sample(value, {label: str(key)}) for key, value in values.items()]
    else:
        samples = []
        for key, value in values.items():
            parts = key if isinstance(key, tuple) else (key,)
            samples.append(Sample(value, dict(zip(label, map(str, parts), strict=True))))
    return Family(name, kind, help_text, samples)


def histogram_samples(
    bounds: Sequence[float], counts: Sequence[int], total: float, labels: Mapping[str, str]
) -> list[Sample]:
    """Return the samples of one histogram; `counts` has one entry for each bound and one for what is above them."""
    samples: list[Sample] = []
    seen = 0
    for bound, count in zip((*bounds, math.inf), counts, strict=True):
        seen += count
        samples.append(Sample(seen, {**labels, "le": _number(bound)}, "_bucket"))
    return [*samples, Sample(total, labels, "_sum"), Sample(seen, labels, "_count")]


class Metrics:
    """Every source of one gateway."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._failures: dict[str, int] = {}
        self._scrapes = 0
        self._lock = threading.Lock()

    def register(self, name: str, source: Source) -> None:
        """Add a source, or replace the one of this name."""
        with self._lock:
            self._sources[name] = source
            self._failures.setdefault(name, 0)

    def render(self) -> str:
        """Ask every source and return the text; one that fails is left out, counted and logged."""
        with self._lock:
            sources = list(self._sources.items())
            self._scrapes += 1
        families: dict[str, Family] = {}
        for name, source in sources:
            try:
                told = list(source())
            except Exception:  # noqa: BLE001  what one part can't tell must not hide what the others can
                _log.exception("the metrics of %s could not be read", name)
                with self._lock:
                    self._failures[name] += 1
                continue
            for family in told:
                known = families.get(family.name)
                samples = (*known.samples, *family.samples) if known is not None else family.samples
                families[family.name] = Family(family.name, family.kind, family.help, samples)
        for own in self._own():
            families[own.name] = own
        return "".join(_text_of(family) for family in families.values())

    def _own(self) -> Iterable[Family]:
        with self._lock:
            failures, scrapes = dict(self._failures), self._scrapes
        yield counter("dicomward_metrics_scrapes_total", "Times that /metrics was read.", scrapes)
        yield labelled(
            "dicomward_metrics_source_failures_total",
            MetricKind.COUNTER,
            "Times that a part of the gateway could not tell its metrics.",
            "source",
            failures,  # type: ignore[arg-type]
        )


def _text_of(family: Family) -> str:
    help_text = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {family.name} {help_text}", f"# TYPE {family.name} {family.kind}"]
    for sample in family.samples:
        labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels.items())
        braces = f"{{{labels}}}" if labels else ""
        lines.append(f"{family.name}{sample.suffix}{braces} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value == int(value) else repr(float(value))

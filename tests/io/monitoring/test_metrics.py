"""The text of the metrics: what another reader of the format understands, whatever a value holds."""

import logging
import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dicomward.io.monitoring.metrics import (
    Family,
    MetricKind,
    Metrics,
    Sample,
    counter,
    gauge,
    histogram_samples,
    labelled,
)


def values_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample as Prometheus's own reader sees it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_text_is_read_by_another_reader() -> None:
    metrics = Metrics()
    metrics.register(
        "a",
        lambda: [
            gauge("dicomward_x", "What x is.", 1.5),
            counter("dicomward_y_total", "What y is.", 3, reason="byte-rate"),
            labelled("dicomward_z", MetricKind.GAUGE, "z", ("a", "b"), {("1", "2"): 4.0}),
        ],
    )
    found = values_of(metrics.render())
    assert found["dicomward_x", ()] == 1.5
    assert found["dicomward_y_total", (("reason", "byte-rate"),)] == 3
    assert found["dicomward_z", (("a", "1"), ("b", "2"))] == 4


@pytest.mark.parametrize("value", ['quo"te', "back\\slash", "new\nline", "\\n", "ünï", ""])
def test_label_comes_back_as_it_was(value: str) -> None:
    metrics = Metrics()
    metrics.register("a", lambda: [gauge("dicomward_x", 'help with \\ and \n and "', 1, name=value)])
    assert ("dicomward_x", (("name", value),)) in values_of(metrics.render())


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.1, 1e300, -7])
def test_number_comes_back_as_it_was(value: float) -> None:
    metrics = Metrics()
    metrics.register("a", lambda: [gauge("dicomward_x", "x", value)])
    assert values_of(metrics.render())["dicomward_x", ()] == value


def test_nan_is_said_as_prometheus_says_it() -> None:
    metrics = Metrics()
    metrics.register("a", lambda: [gauge("dicomward_x", "x", math.nan)])
    assert math.isnan(values_of(metrics.render())["dicomward_x", ()])


def test_buckets_of_a_histogram_add_up() -> None:
    metrics = Metrics()
    samples = histogram_samples((0.1, 1), (2, 3, 4), 5.5, {"service": "storage"})
    metrics.register("a", lambda: [Family("dicomward_t_seconds", MetricKind.HISTOGRAM, "t", samples)])
    found = values_of(metrics.render())
    storage = ("service", "storage")
    assert found["dicomward_t_seconds_bucket", (("le", "0.1"), storage)] == 2
    assert found["dicomward_t_seconds_bucket", (("le", "1"), storage)] == 5
    assert found["dicomward_t_seconds_bucket", (("le", "+Inf"), storage)] == 9
    assert found["dicomward_t_seconds_count", (storage,)] == 9
    assert found["dicomward_t_seconds_sum", (storage,)] == 5.5


def test_two_sources_of_one_name_are_one_family() -> None:
    metrics = Metrics()
    metrics.register("a", lambda: [gauge("dicomward_x", "x", 1, of="a")])
    metrics.register("b", lambda: [gauge("dicomward_x", "x", 2, of="b")])
    text = metrics.render()
    assert text.count("# TYPE dicomward_x gauge") == 1
    assert values_of(text)["dicomward_x", (("of", "b"),)] == 2


def test_source_that_fails_hides_no_other_and_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()

    def fails() -> list[Family]:
        raise OSError("gone")

    metrics.register("bad", fails)
    metrics.register("good", lambda: [gauge("dicomward_x", "x", 1)])
    metrics.render()
    with caplog.at_level(logging.ERROR):
        found = values_of(metrics.render())
    assert found["dicomward_x", ()] == 1
    assert found["dicomward_metrics_source_failures_total", (("source", "bad"),)] == 2
    assert found["dicomward_metrics_source_failures_total", (("source", "good"),)] == 0
    assert found["dicomward_metrics_scrapes_total", ()] == 2
    assert "the metrics of bad could not be read" in caplog.text


def test_source_is_replaced_by_its_name() -> None:
    metrics = Metrics()
    metrics.register("a", lambda: [gauge("dicomward_x", "x", 1)])
    metrics.register("a", lambda: [gauge("dicomward_x", "x", 2)])
    assert values_of(metrics.render())["dicomward_x", ()] == 2


def test_sample_without_labels_has_no_braces() -> None:
    metrics = Metrics()
    metrics.register("a", lambda: [Family("dicomward_x", MetricKind.GAUGE, "x", (Sample(1),))])
    assert "\ndicomward_x 1\n" in metrics.render()

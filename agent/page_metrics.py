"""``/metrics``: the status report in Prometheus' words (docs/status-page.md), written by prometheus-client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.openmetrics import exposition
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

OPENMETRICS = "application/openmetrics-text"

Families = Iterator[Metric]


class Metrics:
    """report: the status report, with ``values`` (page_values.Values.latest)."""

    def __init__(self, report: Callable[[], Mapping[str, Any]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._report = report

    def start(self) -> None:
        self._registry.register(_Report(self._report))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its type: OpenMetrics 1.0 for who takes it, else Prometheus' text format 0.0.4."""
        if accept == OPENMETRICS:
            return exposition.generate_latest(self._registry), exposition.CONTENT_TYPE_LATEST
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class _Report(Collector):
    """Asked at each scrape."""

    def __init__(self, report: Callable[[], Mapping[str, Any]]) -> None:
        self._report = report

    def collect(self) -> Families:
        report = self._report()
        yield InfoMetricFamily("outstation", "Agent and versions.", value={"id": report["agent"], **report["versions"]})
        yield gauge("outstation_uptime_seconds", "Since the agent started.", report["uptime_s"])
        yield gauge("outstation_clock_trusted", "1 while the wall clock is believed.", report["clock"]["trusted"])
        yield from _link(report["link"], report["readings"])
        yield from _outbox(report["outbox"])
        yield from _devices(report["devices"], report["values"])
        yield from _loop(report["loop"], report["workers"])


def gauge(name: str, help: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help, value=float(value))


def counter(name: str, help: str, value: float) -> Metric:
    return CounterMetricFamily(name, help, value=float(value))


def _link(link: Mapping[str, Any], readings: Mapping[str, Any]) -> Families:
    yield gauge("outstation_link_up", "1 while the broker is connected.", link["state"] == "up")
    yield gauge("outstation_link_in_flight", "Messages without an acknowledgement yet.", link["in_flight"])
    yield counter("outstation_link_connects", "Connections that a broker has accepted.", link["connects"])
    yield counter("outstation_link_failures", "Attempts and connections that failed.", link["failures"])
    yield counter("outstation_readings_sent", "Readings handed to the broker, repeats included.", readings["sent"])
    yield counter("outstation_readings_written", "Readings that the broker has acknowledged.", readings["written"])
    yield counter("outstation_readings_rejected", "Readings that the broker did not take.", readings["rejected"])


def _outbox(outbox: Mapping[str, Any]) -> Families:
    yield gauge("outstation_outbox_depth", "Readings in the outbox.", outbox["depth"])
    yield gauge("outstation_outbox_bytes", "Their size.", outbox["bytes"])
    yield gauge("outstation_outbox_open", "1 while the outbox's disk works.", outbox["disk"]["state"] == "open")
    dropped = CounterMetricFamily(
        "outstation_outbox_dropped", "Readings lost to the outbox's bounds.", labels=["device"]
    )
    for device, count in outbox["dropped"].items():
        dropped.add_metric([device], count)
    yield dropped


def _devices(devices: Mapping[str, Any], values: Mapping[str, Any]) -> Families:
    online = GaugeMetricFamily("outstation_device_online", "1 while the device is open.", labels=["device"])
    readings = CounterMetricFamily("outstation_device_readings", "Readings of the device.", labels=["device"])
    openings = CounterMetricFamily("outstation_device_openings", "How often it was opened.", labels=["device"])
    age = GaugeMetricFamily("outstation_device_last_reading_seconds", "Age of its last reading.", labels=["device"])
    faults = CounterMetricFamily("outstation_device_faults", "What came and was no reading.", labels=["device", "kind"])
    channels = GaugeMetricFamily(
        "outstation_channel_value", "The latest number of a channel.", labels=["device", "channel", "unit"]
    )
    for name, device in devices.items():
        online.add_metric([name], device["state"] == "online")
        readings.add_metric([name], device["readings"])
        openings.add_metric([name], device["openings"])
        if device["last_reading_s"] is not None:
            age.add_metric([name], device["last_reading_s"])
        for kind, fault in device["faults"].items():
            faults.add_metric([name, kind], fault["count"])
        for channel, latest in values.get(name, {}).items():
            if isinstance(latest["value"], int | float):
                channels.add_metric([name, channel, latest["unit"]], float(latest["value"]))
    yield from (online, readings, openings, age, faults, channels)


def _loop(loop: Mapping[str, Any], workers: Mapping[str, Any]) -> Families:
    yield gauge("outstation_loop_lag_seconds", "How late the latest timer of the last 10 s was.", loop["lag_s"])
    yield counter("outstation_loop_turns", "Turns of the event loop.", loop["turns"])
    yield counter("outstation_loop_callbacks", "Callbacks that it has called.", loop["callbacks"])
    slow = CounterMetricFamily("outstation_loop_slow", "Callbacks over loop.slow_after.", labels=["event"])
    for event, seen in loop["slow"].items():
        slow.add_metric([event], seen["count"])
    yield slow
    yield gauge("outstation_workers_threads", "Worker threads.", workers["threads"])
    yield gauge("outstation_workers_queued", "Pieces of work that wait.", workers["queued"])
    yield counter("outstation_workers_finished", "Pieces of work done.", workers["finished"])
    yield counter("outstation_workers_failed", "Pieces of work that raised.", workers["failed"])

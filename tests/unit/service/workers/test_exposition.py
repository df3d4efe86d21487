from __future__ import annotations

from zta_authz.service.workers.exposition import Exposition, merged
from zta_authz.telemetry.metrics import Metrics

ONE = b"""# HELP zta_calls_total Calls "of" a\\\\b.
# TYPE zta_calls_total counter
zta_calls_total{who="a\\"b"} 3
# HELP zta_seconds Times.
# TYPE zta_seconds histogram
zta_seconds_bucket{le="1.0"} 2
zta_seconds_bucket{le="+Inf"} 3
zta_seconds_count 3
zta_seconds_sum 4.5
# HELP zta_end_timestamp_seconds End.
# TYPE zta_end_timestamp_seconds gauge
zta_end_timestamp_seconds 100
# HELP zta_queue_records Queue.
# TYPE zta_queue_records gauge
zta_queue_records 2
# HELP zta_failed Failed.
# TYPE zta_failed gauge
zta_failed 0
"""
OTHER = ONE.replace(b" 100\n", b" 90\n").replace(b"failed 0", b"failed 1").replace(b'who="a\\"b"} 3', b'who="c"} 1')


def lines(exposition: Exposition) -> set[str]:
    return {line for line in exposition.render().decode().splitlines() if not line.startswith("#")}


def test_counters_are_added_and_gauges_show_the_value_that_alerts_need() -> None:
    assert lines(merged([ONE, OTHER], Exposition())) == {
        'zta_calls_total{who="a\\"b"} 3.0',
        'zta_calls_total{who="c"} 1.0',
        'zta_seconds_bucket{le="1.0"} 4.0',
        'zta_seconds_bucket{le="+Inf"} 6.0',
        "zta_seconds_count 6.0",
        "zta_seconds_sum 9.0",
        "zta_end_timestamp_seconds 90.0",
        "zta_queue_records 4.0",
        "zta_failed 1.0",
    }


def test_the_counters_of_an_ended_process_stay_and_its_gauges_do_not() -> None:
    ended = Exposition()
    ended.add(ONE.decode(), ended=True)
    ended.add(OTHER.decode(), ended=True)
    shown = lines(merged([ONE], ended))
    assert 'zta_calls_total{who="a\\"b"} 6.0' in shown
    assert "zta_seconds_count 9.0" in shown
    assert {"zta_failed 0.0", "zta_queue_records 2.0", "zta_end_timestamp_seconds 100.0"} <= shown


def test_process_metrics_show_the_sum_the_maximum_or_the_earliest_start() -> None:
    one = (
        b"# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 10\n"
        b"# TYPE process_open_fds gauge\nprocess_open_fds 7\n"
        b"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 100\n"
        b"# TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1\n"
    )
    other = one.replace(b"seconds 100", b"seconds 200").replace(b"fds 7", b"fds 9")
    assert lines(merged([one, other], Exposition())) == {
        "process_resident_memory_bytes 20.0",
        "process_open_fds 9.0",
        "process_start_time_seconds 100.0",
        "process_cpu_seconds_total 2.0",
    }


def test_the_metrics_of_a_single_worker_are_unchanged() -> None:
    text = Metrics("1.0").render()
    assert lines(merged([text], Exposition())) == {
        line for line in text.decode().splitlines() if not line.startswith("#")
    }

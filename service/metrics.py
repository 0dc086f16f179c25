"""Counts and times of the HTTP doors in Prometheus' text format, beside the engine room's own numbers.

Few and bounded: paths are counted by their template, never by the id in them. Each process counts for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters of requests by method, path template and status, and a histogram of their times."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: dict[Labels, int] = {}
        self._times: dict[Labels, list[float]] = {}  # one count a bucket, then the sum and the count
        self._bytes = 0

    def seen(self, method: str, path: str, status: int, seconds: float, sent: int) -> None:
        """Counts one answered request; `path` is the template of its route."""
        place: Labels = (("method", method), ("path", path))
        with self._lock:
            key = (*place, ("status", str(status)))
            self._requests[key] = self._requests.get(key, 0) + 1
            row = self._times.setdefault(place, [0.0] * (len(BUCKETS_S) + 2))
            for i, edge in enumerate(BUCKETS_S):
                row[i] += seconds <= edge
            row[-2] += seconds
            row[-1] += 1
            self._bytes += sent

    def text(self, numbers: Mapping[str, float], facts: Mapping[str, str]) -> str:
        """The exposition; `numbers` are those of the engine room, `facts` labels of one constant gauge."""
        lines = ["# TYPE dopaint_info gauge", f"dopaint_info{_words(tuple(facts.items()))} 1"]
        with self._lock:
            lines.append("# TYPE dopaint_http_requests_total counter")
            lines += [f"dopaint_http_requests_total{_words(key)} {n}" for key, n in sorted(self._requests.items())]
            lines.append("# TYPE dopaint_http_request_seconds histogram")
            for place, row in sorted(self._times.items()):
                edges = [*(format(edge, "g") for edge in BUCKETS_S), "+Inf"]
                counts = [*row[: len(BUCKETS_S)], row[-1]]
                name = "dopaint_http_request_seconds"
                lines += [
                    f"{name}_bucket{_words((*place, ('le', edge)))} {n:g}"
                    for edge, n in zip(edges, counts, strict=True)
                ]
                lines += [f"{name}_sum{_words(place)} {row[-2]:.6f}", f"{name}_count{_words(place)} {row[-1]:g}"]
            lines += ["# TYPE dopaint_http_sent_bytes_total counter", f"dopaint_http_sent_bytes_total {self._bytes}"]
        for name, value in sorted(numbers.items()):
            lines += [f"# TYPE dopaint_{name} gauge", f"dopaint_{name} {value:.10g}"]
        return "\n".join(lines) + "\n"


def _words(labels: Labels) -> str:
    def plain(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{plain(value)}"' for name, value in labels) + "}" if labels else ""

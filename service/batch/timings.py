"""What a run took, by task: processor seconds, wall seconds, and how many pictures or compounds went through.

For people and for the cost model; never part of the results.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.errors import InvalidRequest

FORMAT = "dopaint/batch-timings/1"


@dataclass
class Spent:
    """Sums over the tasks of one kind."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    units: int = 0

    def add(self, cpu_s: float, wall_s: float, units: int) -> None:
        """One task more."""
        self.cpu_s += cpu_s
        self.wall_s += wall_s
        self.units += units


@dataclass
class Timings:
    """Task -> what it took. Units are pictures for paint and profile, compounds for chem and finish."""

    by_task: dict[str, Spent] = field(default_factory=dict)

    def add(self, task: str, cpu_s: float, wall_s: float, units: int) -> None:
        """One task more."""
        self.by_task.setdefault(task, Spent()).add(cpu_s, wall_s, units)

    def document(self, **more: Any) -> dict[str, Any]:
        """As JSON, with seconds a unit."""
        return {
            "format": FORMAT,
            **more,
            "tasks": {
                name: {
                    "cpu_s": round(one.cpu_s, 3),
                    "wall_s": round(one.wall_s, 3),
                    "units": one.units,
                    "cpu_s_each": one.cpu_s / one.units if one.units else None,
                    "wall_s_each": one.wall_s / one.units if one.units else None,
                }
                for name, one in sorted(self.by_task.items())
            },
        }


def read_timings(path: Path) -> dict[str, Any]:
    """The JSON of `document`. Raises `InvalidRequest` for another file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"timings: {str(path)!r} cannot be read ({error})") from error
    if found.get("format") != FORMAT:
        raise InvalidRequest(f"timings: {path.name!r} is not what `dopaint batch --timings` writes")
    return found

"""Named stages with a mark on disk each: what is done stays done, what was interrupted is done again.

A folder belongs to one configuration: `run_stages` writes it down before the first stage and refuses another. A mark is
written after everything else of its stage, in one rename.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import InvalidRequest

Progress = Callable[[int, int, str], None]
MARKS, CONFIG = "marks", "config.json"


@dataclass(frozen=True)
class Stage:
    """`run` does the work, and may be called again after it was interrupted anywhere."""

    name: str
    run: Callable[[], None]


def write_whole(path: Path, text: str) -> None:
    """Write a small file in one rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def mark_of(folder: Path, name: str) -> Path:
    """Where the mark of a stage is; "train/aware-1" and the like become one file name."""
    return folder / MARKS / f"{name.replace('/', '.')}.json"


def done(folder: Path, name: str) -> bool:
    """Whether a stage has its mark."""
    return mark_of(folder, name).is_file()


def claim_folder(folder: Path, document: dict[str, Any]) -> None:
    """Write down what the folder is made with. Raises InvalidRequest where it was made with something else."""
    path = folder / CONFIG
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before != document:
            changed = [
                f"{table}.{key}"
                for table, content in document.items()
                for key in content
                if before.get(table, {}).get(key) != content[key]
            ]
            raise InvalidRequest(
                f"out: {folder} was begun with another configuration ({', '.join(changed) or 'other keys'}); give "
                "another folder, or the earlier configuration"
            )
        return
    write_whole(path, json.dumps(document, indent=1, sort_keys=True) + "\n")


def run_stages(
    folder: Path, stages: Sequence[Stage], progress: Progress | None = None, stop_after: str | None = None
) -> list[str]:
    """Run the stages without a mark, in order, up to `stop_after`; gives the names of those that ran.

    Raises InvalidRequest for a `stop_after` that no stage has.
    """
    names = [stage.name for stage in stages]
    if stop_after is not None and stop_after not in names:
        raise InvalidRequest(f"stop_after: got {stop_after!r}, expected one of {', '.join(names)}")
    ran: list[str] = []
    for number, stage in enumerate(stages):
        if progress is not None:
            progress(number, len(stages), stage.name)
        if not done(folder, stage.name):
            began, processor = time.monotonic(), time.process_time()
            stage.run()
            took = {
                "stage": stage.name,
                "seconds": round(time.monotonic() - began, 1),
                "processor_seconds_of_this_process": round(time.process_time() - processor, 1),
            }
            write_whole(mark_of(folder, stage.name), json.dumps(took) + "\n")
            ran.append(stage.name)
        if stage.name == stop_after:
            break
    return ran


def seconds_taken(folder: Path, stages: Sequence[Stage]) -> dict[str, float]:
    """Wall seconds of every finished stage; of an interrupted one those of its last run."""
    taken = {}
    for stage in stages:
        path = mark_of(folder, stage.name)
        if path.is_file():
            taken[stage.name] = float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    return taken

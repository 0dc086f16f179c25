"""A worker process of the local executor: one role, one room, tasks in and answers out, until the pipe closes.

Started by `service.batch.local` as `python -m service.batch.worker CONFIG`, CONFIG in JSON. Messages are the frames of
the measuring engines: a JSON header and arrays, never unpickled. Pictures lie in the shared arena.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from profiling.engines.cellprofiler_worker import frames
from service.batch.arena import Arena
from service.batch.plan import Plan, read_plan
from service.batch.replay import Replay
from service.batch.room import open_room, provenance_from
from service.batch.stages import Item, Stages
from service.batch.store import Store
from service.errors import EngineFailure, sentence

CHEM, PAINT, PROFILE, FINISH = "chem", "paint", "profile", "finish"
Message = tuple[dict[str, Any], dict[str, np.ndarray]]


class Worker:
    """The tasks a worker knows. Items go into a message side by side: arrays of item i are called "i/name"."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        store = Store(config["url"], config["options"])
        plan = read_plan(store)
        if plan is None:
            raise EngineFailure(f"{config['url']} holds no plan")
        self._stages = Stages(_room(plan, config), plan, store)
        self._arena = Arena.open(config["arena"], config["slots"], config["bytes_each"])
        self._tasks: dict[str, Callable[[list[Item]], list[Item]]] = {
            CHEM: lambda items: [self._stages.chem(one) for one in items],
            PAINT: self._paint,
            PROFILE: lambda items: [self._stages.profile(self._with_pictures(one)) for one in items],
            FINISH: lambda items: [self._stages.finish(items)],
        }

    def answer(self, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Message:
        """One task done."""
        cpu, wall = time.process_time(), time.monotonic()
        answers = self._tasks[header["task"]](unpacked(header, arrays))
        return packed(answers, cpu_s=time.process_time() - cpu, wall_s=time.monotonic() - wall)

    def _paint(self, items: list[Item]) -> list[Item]:
        made = []
        for one, painted in zip(items, self._stages.paint(items), strict=True):
            if "failed" in painted.header:
                made.append(Item({**painted.header, "slot": one.header["slot"]}, {}))
                continue
            pictures = painted.arrays["pictures"]
            self._arena.put(one.header["slot"], pictures)
            made.append(Item({**painted.header, "shape": list(pictures.shape)}, {}))
        return made

    def _with_pictures(self, item: Item) -> Item:
        pictures = self._arena.get(item.header["slot"], tuple(item.header["shape"]))
        return Item(item.header, {"pictures": pictures})


def _room(plan: Plan, config: Mapping[str, Any]) -> Any:
    given = provenance_from(plan.document["provenance"])
    if config["role"] == "paint" and config.get("trace"):
        return Replay(open_room(plan.request, (), given), config["trace"])
    return open_room(plan.request, (config["role"],), given, config["device"])


def packed(items: list[Item], **more: Any) -> Message:
    """Items as one message."""
    arrays = {f"{i}/{name}": array for i, one in enumerate(items) for name, array in one.arrays.items()}
    return {**more, "items": [one.header for one in items]}, arrays


def unpacked(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[Item]:
    """The inverse of `packed`."""
    items = [Item(dict(one), {}) for one in header["items"]]
    for name, array in arrays.items():
        place, _, key = name.partition("/")
        items[int(place)].arrays[key] = array
    return items


def main(config: dict[str, Any]) -> int:
    """Says hello when everything is loaded, then answers tasks until the client closes the pipe."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anything prints goes to the log
    warnings.simplefilter("ignore")

    def send(header: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> None:
        answers.write(frames.encode(header, arrays))
        answers.flush()

    try:
        worker = Worker(config)
    except Exception as error:
        send({"error": f"{sentence(error)} [{type(error).__name__}: {error}]"})
        return 1
    send({"hello": config["role"]})
    while len(prefix := requests.read(frames.PREFIX.size)) == frames.PREFIX.size:
        (length,) = frames.PREFIX.unpack(prefix)
        body = requests.read(length)
        if len(body) < length:
            break
        try:
            answer = worker.answer(*frames.decode(body))
        except Exception as error:
            send({"error": f"{type(error).__name__}: {error}"})
            continue
        send(*answer)
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))

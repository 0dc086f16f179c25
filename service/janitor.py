"""What is cleared away: results whose time is over, records of those long after, files that belong to no job."""

from __future__ import annotations

import logging
import shutil
import time
from contextlib import suppress
from pathlib import Path

from service.job import CANCELLED, DONE, EXPIRED, FAILED, QUEUED, RUNNING
from service.job_files import JobFiles
from service.quota import Rules
from service.store import Store

LOG = logging.getLogger("dopaint.jobs")
STRAY_S = 3600.0  # files of no known job are left alone for so long: a job may be about to be added


def tidy(store: Store, data: Path, rules: Rules, now: float, *, stray_s: float = STRAY_S) -> list[str]:
    """One round; answers the jobs whose results expired. Raises `StorageFull`, `Damaged`."""
    expired = store.due((DONE, FAILED, CANCELLED), now)
    for key in expired:
        store.expire(key)
    for key in store.due((EXPIRED,), now):
        files = JobFiles(data, key)
        if files.request.is_file() or files.results.is_dir() or files.work.is_dir():
            files.remove_request()
            files.remove_results()
    for key in store.due((EXPIRED,), now - rules.forget_s):
        store.forget(key)
    if expired:
        LOG.info("the results of %d jobs have expired", len(expired))
    sweep(store, data, stray_s)
    return expired


def mark_endings(store: Store, data: Path) -> None:
    """Notes, beside the requests, the endings that a killed service could not note: a rebuilt store must know them."""
    for key, state in store.known().items():
        files = JobFiles(data, key)
        if state in (FAILED, CANCELLED) and files.request.is_file() and not files.ending.is_file():
            files.end({"state": state, "problem": store.get(key).problem})


def sweep(store: Store, data: Path, stray_s: float) -> int:
    """Takes away files of jobs that the store does not know, and the work of jobs that have ended."""
    known = store.known()
    if not known and any((data / "results").glob("*/request.json")):
        LOG.warning("the store knows no job, but there are results: is it the right database? nothing is cleared away")
        return 0
    gone = 0
    for shelf in ("requests", "work", "results"):
        for path in (data / shelf).glob("*"):
            key = path.name.split(".")[0]
            wanted = key in known and not (shelf == "work" and known[key] not in (QUEUED, RUNNING))
            if wanted or not _older(path, stray_s):
                continue
            gone += 1
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return gone


def _older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime >= seconds
    except OSError:
        return False

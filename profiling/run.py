"""A profiling run: fields of view in, tables out, one batch of pictures in memory at a time.

Whatever becomes of a field is kept on disk at once (`shards`), so a stopped run goes on where it was; the tables are
written at the end from what is kept, so an interrupted run and an uninterrupted one give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from profiling import levels
from profiling.engines.measurement import FieldMeasurement
from profiling.inputs.field import Field, FieldSet, InvalidInput, describe
from profiling.inputs.pixels import RANGES, field_key, read_field, read_planes
from profiling.look import Judge
from profiling.outcomes import MEASURED, OUTCOMES, BadPicture, Limits, check_pixels, outcome_of
from profiling.overlay_files import Overlays
from profiling.shards import Finished, Shards, write_whole

#: Raised by hand when a change here moves a number or an outcome.
REVISION = 1
LOOKED_AT = 25  # fields whose size is looked at before the run, where no size is stated

Progress = Callable[[int, int, str], None]


@runtime_checkable
class Measures(Protocol):
    """What a run asks of an engine; see `engines` and `embedders`."""

    @property
    def hash(self) -> str: ...

    def measure(
        self,
        pictures: Float32[np.ndarray, "n c h w"],
        channels: Sequence[str],
        progress: Callable[[int], None] | None = None,
    ) -> list[FieldMeasurement]: ...


@dataclass(frozen=True)
class Correction:
    """What is done to a picture before it is measured: illumination. `hash` stands for it."""

    hash: str = ""
    correct: Callable[[Field, Float32[np.ndarray, "c h w"]], Float32[np.ndarray, "c h w"]] | None = None


@dataclass(frozen=True)
class RunConfig:
    """`bits`: one of RANGES. `levels`: tables to write. `batch`: pictures in memory at once (twice as many while the
    next batch is read). `name`: the engine's name, for the record. `overlays`: of so many of the fields that this run
    measures, outlines are drawn into `<out>.overlays/`; the engine must return masks.

    Raises:
        InvalidInput: an unknown range. InvalidProfiles: an unknown level.
    """

    bits: str
    levels: tuple[str, ...] = ("field", "well")
    limits: Limits = field(default_factory=Limits)
    batch: int = 8
    name: str = ""
    overlays: int = 0

    def __post_init__(self) -> None:
        if self.bits not in RANGES:
            raise InvalidInput(f"bits: got {self.bits!r}, expected one of {', '.join(RANGES)}")
        levels.check_levels(self.levels)


@dataclass(frozen=True)
class Summary:
    """`counts`: fields by outcome. `kept`: fields that an earlier run had finished. `size`: pixels of every field."""

    counts: Mapping[str, int]
    kept: int
    excluded: int
    cells: int
    wells: int
    size: tuple[int, int] | None
    tables: Mapping[str, Path]
    outcomes: Path

    @property
    def fields(self) -> int:
        return sum(self.counts.values())

    @property
    def measured(self) -> int:
        return sum(n for outcome, n in self.counts.items() if outcome in MEASURED)

    def sentence(self) -> str:
        """One line: fields in, what became of them, and what came out."""
        parts = [f"{self.counts[name]} {name}" for name in OUTCOMES if self.counts.get(name)]
        quality = f", {self.excluded} of them flagged and left out of their wells" if self.excluded else ""
        wells = f", {self.wells} wells" if "well" in self.tables else ""
        lost = self.fields - self.measured
        return (
            f"{self.fields} fields in: {', '.join(parts)}; {self.measured} measured{quality}, {lost} not; "
            f"{self.cells} cells{wells}"
        )


def run(
    fields: FieldSet,
    engine: Measures,
    out: Path,
    config: RunConfig,
    correction: Correction | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Measures every field that is not finished yet, then writes the tables of `config.levels` and of outcomes.

    Beside `out`: `<name>.fields/` keeps the finished fields, `<name>.outcomes.csv` says what became of each field,
    `<name>.quality.csv` counts the flags. `judge` (quality control) flags fields and keeps some out of their well's
    mean; it changes no measurement, so another judgement measures nothing anew.

    Raises:
        InvalidInput: a kept result that was damaged on disk. InvalidProfiles: wells without a name. What the engine
        raises when it cannot start.
    """
    places = levels.paths(out, config.levels)
    meta = list(fields.fields[0].meta)
    levels.check_wells(places, meta)
    correction, tell = correction or Correction(), progress or (lambda done, total, stage: None)
    limits = with_size(config.limits, fields)
    folder = out.with_name(f"{out.stem}.fields") / _run_hash(engine, fields.channels, config, limits, correction)
    shards = Shards(folder)
    keys = [field_key(field) for field in fields.fields]
    todo = [i for i, key in enumerate(keys) if not shards.has(key)]
    done = kept = len(keys) - len(todo)
    drawn = Overlays.spread(out.with_name(f"{out.stem}.overlays"), config.overlays, len(keys))
    tell(done, len(keys), "profiling")
    for batch, pixels in _batches(fields, todo, config, limits, correction):
        for i, finished in _measured(engine, fields, batch, pixels, drawn, _from(done, len(keys), tell)):
            shards.save(keys[i], finished)
        done += len(batch)
        tell(done, len(keys), "profiling")
    summary = _write(fields, shards, keys, places, meta, out, judge, tell)
    return replace(summary, kept=kept, size=limits.size)


def with_size(limits: Limits, fields: FieldSet) -> Limits:
    """The limits with the size that every field must have: the stated one, or the commonest."""
    if limits.size is not None:
        return limits
    return replace(limits, size=commonest_size(fields.fields, fields.channels))


def commonest_size(fields: Sequence[Field], channels: Sequence[str]) -> tuple[int, int] | None:
    """Height and width of most of up to 25 fields spread over the input, by their first channel; None where not one of
    them can be read. A tie goes to the larger picture."""
    step = max(1, -(-len(fields) // LOOKED_AT))
    sizes: Counter[tuple[int, int]] = Counter()
    for one in fields[::step]:
        plane = one.planes.get(channels[0])
        if plane is not None:
            try:
                shape = read_planes(plane.path, [plane.which])[0].shape
            except BadPicture:
                continue
            sizes[int(shape[0]), int(shape[1])] += 1
    return max(sizes, key=lambda one: (sizes[one], one[0] * one[1]), default=None)


def _run_hash(
    engine: Measures, channels: Sequence[str], config: RunConfig, limits: Limits, correction: Correction
) -> str:
    """Everything that determines a finished field, beside the field: a change of any of it starts anew."""
    content = {
        "revision": REVISION,
        "engine": [config.name, engine.hash],
        "channels": list(channels),
        "bits": config.bits,
        "limits": [limits.saturated_percent, limits.size],
        "corrections": correction.hash,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


Read = np.ndarray | BadPicture


def _batches(
    fields: FieldSet, todo: Sequence[int], config: RunConfig, limits: Limits, correction: Correction
) -> Iterator[tuple[list[int], list[Read]]]:
    """Batches of positions with their pixels; the next batch is read while the last one is measured."""

    def read(i: int) -> Read:
        field = fields.fields[i]
        try:
            pixels = read_field(field, fields.channels, config.bits)
            check_pixels(pixels, fields.channels, limits)
        except BadPicture as error:
            return error
        return correction.correct(field, pixels) if correction.correct else pixels

    chunks = [list(todo[k : k + config.batch]) for k in range(0, len(todo), config.batch)]
    with ThreadPoolExecutor(2) as pool:
        ahead: list[Future[Read]] = [pool.submit(read, i) for i in chunks[0]] if chunks else []
        try:
            for k, chunk in enumerate(chunks):
                now = [future.result() for future in ahead]
                ahead = [pool.submit(read, i) for i in chunks[k + 1]] if k + 1 < len(chunks) else []
                yield chunk, now
        finally:
            for future in ahead:
                future.cancel()


def _from(done: int, total: int, tell: Progress) -> Callable[[int], None]:
    return lambda more: tell(done + more, total, "profiling")


def _measured(
    engine: Measures,
    fields: FieldSet,
    batch: Sequence[int],
    read: Sequence[Read],
    drawn: Overlays,
    tell: Callable[[int], None],
) -> Iterator[tuple[int, Finished]]:
    good = [k for k, pixels in enumerate(read) if isinstance(pixels, np.ndarray)]
    answers: dict[int, FieldMeasurement] = {}
    if good:
        pictures = np.stack([np.asarray(read[k], np.float32) for k in good])
        answers = dict(zip(good, engine.measure(pictures, fields.channels, tell), strict=True))
    for k, i in enumerate(batch):
        pixels = read[k]
        if isinstance(pixels, BadPicture):
            yield i, Finished(pixels.outcome, str(pixels))
        else:
            answer = answers[k]
            drawn.draw(i, fields.fields[i].meta, pixels, fields.channels, answer.masks)
            yield i, Finished(outcome_of(answer), answer.reason, answer.objects, answer.image)


def _write(
    fields: FieldSet,
    shards: Shards,
    keys: Sequence[str],
    places: Mapping[str, Path],
    meta: Sequence[str],
    out: Path,
    judge: Judge | None,
    tell: Progress,
) -> Summary:
    columns: dict[str, tuple[str, ...]] = {}
    for key in keys:
        if (first := shards.load(key)) is not None and first.objects:
            columns = {name: table.names for name, table in first.objects.items()}
            break
    counts: Counter[str] = Counter()
    cells = excluded = 0
    flagged: list[tuple[str, ...]] = []
    lines = [[*meta, "Outcome", "Reason", "Flags", "Cells"]]
    with levels.Tables(places, columns, meta) as tables:
        for done, (field, key) in enumerate(zip(fields.fields, keys, strict=True), start=1):
            finished = shards.load(key)
            if finished is None:
                shards.drop(key)
                raise InvalidInput(
                    f"out: the kept result of {describe(field.meta)} was damaged on disk and has been removed: run the "
                    "same command again to measure it anew"
                )
            flags = judge.flags(field) if judge is not None and finished.outcome in MEASURED else ()
            out_of_well = judge is not None and judge.excludes(flags)
            flagged.append(flags)
            tables.add(field.meta, finished, flags, out_of_well)
            own = finished.objects.get("Cells", finished.objects.get("Nuclei"))
            n = 0 if own is None else len(own.values)
            counts[finished.outcome] += 1
            cells, excluded = cells + n, excluded + out_of_well
            lines.append([*field.meta.values(), finished.outcome, finished.reason, " ".join(flags), str(n)])
            if done % 50 == 0 or done == len(keys):
                tell(done, len(keys), "writing tables")
    outcomes = out.with_name(f"{out.stem}.outcomes.csv")
    write_whole(outcomes, "".join(",".join(map(_quoted, line)) + "\n" for line in lines).encode())
    if judge is not None:
        write_whole(out.with_name(f"{out.stem}.quality.csv"), judge.report(flagged).to_csv(index=False).encode())
    return Summary(dict(counts), 0, excluded, cells, tables.wells, None, places, outcomes)


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text

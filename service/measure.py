"""From the options of `dopaint profile` to a run: which input, which engine, which corrections."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.errors import InvalidRequest, UnknownName

if TYPE_CHECKING:
    from profiling.inputs import FieldSet
    from profiling.look import Judge
    from profiling.run import Correction, Progress, RunConfig, Summary

#: Fields in memory for each worker: enough that no worker waits for the slowest field of a batch for long.
BATCH_A_WORKER = 4
#: Fields that a device measures at once; twice as many are in memory, so that the next ones are found meanwhile.
BATCH_A_DEVICE = 32
ESTIMATE, DEFAULT = "estimate", "default"


@dataclass(frozen=True)
class Options:
    """The options of `dopaint profile`; see there."""

    engine: str = "cellprofiler"
    settings: str = "jump"
    bits: str | None = None
    format: str | None = None
    pattern: str | None = None
    channels: str | None = None
    levels: tuple[str, ...] = ("field", "well")
    root: Path | None = None
    plates: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    size: str | None = None
    saturated: float = 5.0
    illumination: str | None = None
    quality: str | None = None
    weights: Path | None = None
    device: str | None = None
    overlays: int = 0
    workers: int = 2
    timeout_s: float = 120.0
    batch: int | None = None


def measure(
    source: Path,
    out: Path,
    options: Options,
    progress: Progress | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Opens the input, starts the engine and runs it over all fields; `note` is told what was left aside.

    Raises:
        UnknownName: no such engine. InvalidRequest: an option that cannot be read, or a range that nobody states. What
        the input, the engine and the run refuse.
    """
    from profiling.inputs import open_input
    from profiling.inputs.formats import Wanted
    from profiling.outcomes import Limits
    from profiling.run import RunConfig, run, with_size

    if out.suffix != ".parquet":
        raise InvalidRequest(f"out: got {out.name!r}, expected a file that ends in .parquet")
    make = engine_of(options)
    wanted = Wanted(options.pattern, channels_of(options.channels), options.root, options.plates, options.keep)
    fields = open_input(source, wanted, options.format)
    for line in fields.notes:
        note(line)
    config = RunConfig(
        bits=options.bits or stated_bits(fields),
        levels=options.levels,
        limits=Limits(options.saturated, size_of(options.size)),
        batch=options.batch or max(BATCH_A_WORKER * options.workers, 2 * BATCH_A_DEVICE if options.device else 0),
        name=options.engine,
        overlays=options.overlays,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    config = replace(config, limits=with_size(config.limits, fields))
    correction, judge = looked(options, fields, config, out.with_name(f"{out.stem}.fields"), progress)
    with make as engine:
        return run(fields, engine, out, config, correction, judge, progress)


def engine_of(options: Options) -> AbstractContextManager[Any]:
    """The engine by name; its processes start when it is entered. Raises UnknownName, InvalidRequest."""
    from profiling.embedders import EMBEDDERS
    from profiling.engines import ENGINES

    if options.engine in EMBEDDERS and options.overlays:
        raise InvalidRequest(f"overlays: {options.engine} finds no objects; they are for {', '.join(ENGINES)}")
    if options.engine in EMBEDDERS:
        return EMBEDDERS[options.engine](options.weights)
    if options.engine not in ENGINES:
        raise UnknownName(
            f"engine {options.engine!r} does not exist: expected one of {', '.join([*ENGINES, *EMBEDDERS])}"
        )
    if options.weights is not None:
        raise InvalidRequest(f"weights: {options.engine} has none; they are for {', '.join(EMBEDDERS)}")
    named: dict[str, Any] = {"masks": True} if options.overlays else {}
    if options.device is not None:
        if options.engine != "fast":
            raise InvalidRequest(f"device: {options.engine} runs on cores only; --device is for --engine fast")
        named |= {"device": options.device, "batch": BATCH_A_DEVICE}
    made: AbstractContextManager[Any] = ENGINES[options.engine](
        options.settings, options.workers, options.timeout_s, **named
    )
    return made


def channels_of(text: str | None) -> Mapping[str, str] | tuple[str, ...] | None:
    """ "DNA,ER" → names; "DNA=ch5,ER=ch4" → name → what the files call it. Raises InvalidRequest for a mixture."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    pairs = [part.partition("=") for part in parts]
    if not all(parts) or len({name for name, _, _ in pairs}) < len(pairs):
        raise InvalidRequest(f"channels: got {text!r}, expected distinct names as in DNA,ER,RNA,AGP,Mito")
    if not any(sign for _, sign, _ in pairs):
        return tuple(parts)
    if not all(name and token for name, _, token in pairs):
        raise InvalidRequest(f"channels: got {text!r}, expected DNA=ch5,ER=ch4,...: the same form for all channels")
    return {name: token for name, _, token in pairs}


def size_of(text: str | None) -> tuple[int, int] | None:
    """ "1080x1080" → (1080, 1080). Raises InvalidRequest."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise InvalidRequest(f"size: got {text!r}, expected height x width in pixels, as in 1080x1080")
    return int(match[1]), int(match[2])


def stated_bits(fields: FieldSet) -> str:
    """The range that the files state. Raises InvalidRequest where they state none: it is never guessed."""
    if fields.bits is None:
        raise InvalidRequest(
            "bits: the files do not say which range their numbers have; state it with --bits 8, 12, 16 or float "
            "(12-bit cameras write 16-bit files)"
        )
    return fields.bits


def looked(
    options: Options, fields: FieldSet, config: RunConfig, folder: Path, progress: Progress | None
) -> tuple[Correction | None, Judge | None]:
    """Illumination and quality control as asked for; both need one look at all pictures of a plate.

    Raises:
        InvalidRequest: a file of settings that cannot be read. InvalidIllumination, InvalidQuality: a plate with too
        few pictures, or without the functions that were named.
    """
    from profiling import look
    from profiling.illumination import IlluminationConfig
    from profiling.quality import QualityLimits
    from profiling.run import Correction

    light = limits = None
    folder_of_functions = Path(options.illumination) if options.illumination else None
    if folder_of_functions is not None and not folder_of_functions.is_dir():
        light = IlluminationConfig.from_mapping(_settings("illumination", str(options.illumination), ESTIMATE))
    if options.quality is not None:
        limits = QualityLimits.from_mapping(_settings("quality", options.quality, DEFAULT))
    looks: dict[look.Plate, look.Look] = {}
    if light is not None or limits is not None:
        asked = look.Asked(light, limits is not None)
        looks = look.look(fields, config.bits, config.limits, asked, folder / "looks", progress)
    functions = looks
    if folder_of_functions is not None and light is None:
        functions = look.read_functions(folder_of_functions, fields)
    correction = Correction(*look.correction(functions, fields.channels)) if options.illumination else None
    return correction, None if limits is None else look.judge(looks, fields.channels, limits)


def _settings(name: str, text: str, word: str) -> dict[str, Any]:
    """The settings of a TOML file; none, which means the defaults, for `word`."""
    if text == word:
        return {}
    try:
        return tomllib.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(
            f"{name}: {text!r} is neither {word!r} nor a TOML file that can be read: {error}"
        ) from error

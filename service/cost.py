r"""What M compounds x N draws cost on given machines: FLOP, bytes, GPU hours, wall time, and which stage is the limit.

Work is counted, not guessed: FLOP of the U-Net's steps and the decoder on shapes alone (`ldm.flops`), bytes of the
tables and pictures from their shapes. Rates are data: `configs/service/devices.toml`, or the timings of a run
(`dopaint batch --timings`). With GPUs the stages run side by side, so the wall time is that of the slowest; on
processors alone they share the cores, so it is their sum:

    GPU:  T = start + max(P t_g / G, P t_p / C, M t_c / D, B / b)        CPU:  T = start + (P t_g + P t_p + M t_c) / C

with P = (M + 1) N pictures, G GPUs, C cores for profiles, D for compounds, B bytes kept, b bytes a second of storage.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service import resources
from service.batch.timings import read_timings
from service.engine import SETTINGS_OF_SIZE, find_model
from service.errors import InvalidRequest, UnknownName

PAPER = "paper"
CPU = "cpu-core"
#: Bytes a number takes in a parquet file of float64 (float32) after zstd: measured on effects, which hardly compress.
FLOAT64, FLOAT32 = 8.0, 4.0
#: Bytes of one row of predictions and of an outcome, compressed; measured on a run of the shipped model.
LABEL_ROW, ENTRY_ROW = 60.0, 150.0
PNG_PER_PIXEL, TIFF_PER_VALUE = 0.9, 3.6


@dataclass(frozen=True)
class Shape:
    """What a model's pictures and answers are made of. flop: of one picture, all steps and the decoder."""

    name: str
    flop: float
    channels: int
    side: int
    steps: int
    micro_batch: int
    features: int
    labels: int

    @property
    def picture_bytes(self) -> int:
        """Of one picture in memory, float32."""
        return 4 * self.channels * self.side**2


@dataclass(frozen=True)
class Rates:
    """Seconds: `generate` of the device a picture (a whole device: one GPU, or one core), `profile` of a core a
    picture, `compound` of a core a compound (chem, effects, predictions), `start` until everything runs."""

    generate: float
    profile: float
    compound: float
    start: float
    basis: str


@dataclass(frozen=True)
class Machines:
    """gpus: 0 paints on the cores. cores: for profiles and compounds (for everything without GPUs). storage: bytes a
    second that can be written, all machines together."""

    gpus: int = 0
    cores: int = 2
    storage: float = 1e9


@dataclass(frozen=True)
class Estimate:
    """The cost. seconds_by_stage: wall time of each stage if it ran alone; `limit` is the slowest."""

    compounds: int
    draws: int
    pictures: int
    flop: float
    device_hours: float
    core_hours: float
    wall_s: float
    limit: str
    seconds_by_stage: dict[str, float]
    storage_bytes: float
    moved_bytes: float
    basis: str

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def shape_of(model: str | Path, steps: int | None = None) -> Shape:
    """The shape of a model folder, or of the paper's model ("paper": 384 pixels, 50 steps, SDXL's decoder).

    FLOP are counted on the meta device: no weights are loaded. Padding is not counted: a batch fills the gaps of a
    compound's last micro-batch with other compounds.
    """
    if str(model) == PAPER:
        return _paper(steps or 50)
    folder = find_model(model)
    facts = json.loads((folder / "dopaint.json").read_text(encoding="utf-8"))
    manifest = json.loads((folder / "reference" / "manifest.json").read_text(encoding="utf-8"))["counts"]
    taken = steps or int(facts["steps"])
    flop, side = _folder_flop(folder, facts, taken)
    return Shape(
        folder.name,
        flop,
        len(facts["channels"]),
        side,
        taken,
        int(facts["micro_batch"]),
        int(manifest["features_measured"]),
        int(manifest["labels_moa"]) + int(manifest["labels_target"]),
    )


def _folder_flop(folder: Path, facts: dict[str, Any], steps: int) -> tuple[float, int]:
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from ldm.flops import decoder_flops, unet_flops
    from ldm.small_decoder import SmallDecoder

    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder / "unet"))
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder / "vae"))
    groups = len(facts["groups"])
    latent, depth = int(unet.config["sample_size"]), int(unet.config["in_channels"])
    total = float(steps * unet_flops(unet, 1))
    if facts.get("decoder", "full") == "small":
        with torch.device("meta"):
            small = SmallDecoder.from_config(SmallDecoder.load_config(folder / "decoder"))
        total += decoder_flops(small, (depth, latent, latent))
    else:
        total += groups * decoder_flops(lambda z: vae.decode(z).sample, (depth // groups, latent, latent))
    return total, latent * 2 ** (len(vae.config["block_out_channels"]) - 1)


def _paper(steps: int) -> Shape:
    import torch

    from ldm.flops import decoder_flops, unet_flops
    from ldm.sdxl import sdxl_shape
    from ldm.unet import PAPER as CONFIG
    from ldm.unet import build_unet

    with torch.device("meta"):
        unet, vae = build_unet(CONFIG), sdxl_shape()
    side = CONFIG.latent_size
    flop = steps * unet_flops(unet, 1) + 2 * decoder_flops(lambda z: vae.decode(z).sample, (4, side, side))
    return Shape(PAPER, float(flop), 5, 8 * side, steps, 8, 3518, 30)


def load_devices(path: Path | None = None) -> dict[str, Any]:
    """`configs/service/devices.toml` or another file. Raises `InvalidRequest` for an unknown table or key."""
    file = path or resources.path("configs") / "service" / "devices.toml"
    table = tomllib.loads(file.read_text(encoding="utf-8"))
    if unknown := sorted(set(table) - {"device", "profile", "compound"}):
        raise InvalidRequest(f"{file.name}: unknown table [{unknown[0]}], expected device, profile and compound")
    for name, one in table["device"].items():
        if wrong := sorted(set(one) ^ {"tflops", "share", "memory_gib", "basis"}):
            raise InvalidRequest(f"{file.name}: [device.{name}] has a wrong or missing key {wrong[0]!r}")
    return table


def rates_of(shape: Shape, device: str, engine: str, devices: dict[str, Any] | None = None) -> Rates:
    """Rates from the table of devices. Raises `UnknownName` for a device or engine that it does not know."""
    table = devices or load_devices()
    if device not in table["device"]:
        raise UnknownName(f"device {device!r} is not known: expected one of {', '.join(table['device'])}")
    settings = SETTINGS_OF_SIZE.get(shape.side, "jump")
    key = f"{engine}:{settings}"
    if key not in table["profile"]:
        raise UnknownName(f"engine {key!r} has no measured time: expected one of {', '.join(table['profile'])}")
    one, compound = table["device"][device], table["compound"]
    generate = shape.flop / (one["tflops"] * 1e12 * one["share"])
    each = float(compound["chem"] + compound["finish"])
    return Rates(generate, float(table["profile"][key]), each, float(compound["start"]), f"{device}: {one['basis']}")


def rates_from(timings: Path) -> Rates:
    """Rates as measured by a run: processor seconds, or the device's wall seconds where a GPU painted."""
    found = read_timings(timings)
    tasks = found["tasks"]
    missing = [name for name in ("paint", "profile", "chem", "finish") if not tasks.get(name, {}).get("units")]
    if missing:
        raise InvalidRequest(f"timings: {timings.name!r} has nothing for {missing[0]}: measure a run that paints")
    generate = tasks["paint"]["wall_s_each" if found.get("gpu") else "cpu_s_each"]
    compound = tasks["chem"]["cpu_s_each"] + tasks["finish"]["cpu_s_each"] + float(found.get("commit_s_each", 0.0))
    return Rates(generate, tasks["profile"]["cpu_s_each"], compound, float(found.get("start_s", 0.0)), "measured run")


def estimate(
    shape: Shape,
    compounds: int,
    draws: int,
    rates: Rates,
    machines: Machines,
    *,
    pictures_kept: str = "none",
    profiles_kept: str = "none",
    entries: int | None = None,
) -> Estimate:
    """The cost of `compounds` distinct molecules under `draws` draws, the control included. See the module."""
    if compounds < 0 or draws < 1 or machines.cores < 1 or machines.gpus < 0 or machines.storage <= 0:
        raise InvalidRequest(
            "compounds, draws, cores, GPUs and storage must not be negative; draws and cores at least 1"
        )
    pictures = (compounds + 1) * draws if compounds else 0
    kept = storage(shape, compounds, draws, pictures_kept, profiles_kept, compounds if entries is None else entries)
    generate, profile = pictures * rates.generate, pictures * rates.profile
    compound = compounds * rates.compound
    start = rates.start if compounds else 0.0
    if machines.gpus:
        # One core in nine works on compounds, as the executors share them out.
        desks = max(1.0, machines.cores / 9)
        stages = {
            "generate": generate / machines.gpus,
            "profile": profile / max(machines.cores - desks, 1.0),
            "effects": compound / desks,
            "storage": kept / machines.storage,
        }
        wall = start + max(stages.values())
    else:
        stages = {
            "generate": generate / machines.cores,
            "profile": profile / machines.cores,
            "effects": compound / machines.cores,
            "storage": kept / machines.storage,
        }
        wall = start + sum(stages.values())
    limit = max(stages, key=lambda name: stages[name])
    core_s = profile + compound + (0.0 if machines.gpus else generate)
    return Estimate(
        compounds,
        draws,
        pictures,
        pictures * shape.flop,
        generate / 3600 if machines.gpus else 0.0,
        core_s / 3600,
        wall,
        limit,
        stages,
        kept,
        float(pictures * shape.picture_bytes),
        rates.basis,
    )


def storage(shape: Shape, compounds: int, draws: int, pictures: str, profiles: str, entries: int) -> float:
    """Bytes of a run's files: effects (float64), errors (float32), labels, entries, and what else is kept."""
    total = compounds * (shape.features * (FLOAT64 + FLOAT32) + shape.labels * LABEL_ROW) + entries * ENTRY_ROW
    if profiles == "draws":
        total += compounds * draws * shape.features * FLOAT64
    pixels = shape.side**2
    if pictures == "preview":
        total += compounds * pixels * PNG_PER_PIXEL
    if pictures == "all":
        total += compounds * draws * pixels * (PNG_PER_PIXEL + shape.channels * TIFF_PER_VALUE)
    return total


def lines(found: Estimate) -> list[str]:
    """The estimate in words, for a terminal."""
    by_stage = ", ".join(f"{name} {duration(seconds)}" for name, seconds in found.seconds_by_stage.items())
    where = f"{found.device_hours:.2f} GPU hours, " if found.device_hours else ""
    return [
        f"{found.pictures} pictures, {found.flop / 1e12:.3g} TFLOP, {found.moved_bytes / 1e9:.3g} GB of pictures moved",
        f"{where}{found.core_hours:.2f} core hours, about {duration(found.wall_s)}; each stage alone: {by_stage}",
        f"the limit: {found.limit}; files: {found.storage_bytes / 1e9:.3g} GB; rates: {found.basis}",
    ]


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"

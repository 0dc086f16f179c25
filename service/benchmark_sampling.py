"""`dopaint benchmark sampling`: pictures a second and the share of the machine's matrix rate, beside stock diffusers.

Every row is one network (the shipped model, or the paper's U-Net with random weights: speed does not depend on them),
one way to run it, the same number of steps and the same starting noise, in one process: warmed up once, then the median
of the repeats. `stock` is diffusers' own loop: its scheduler, its U-Net, its decoder, group by group, float32. FLOP are
counted on shapes; the matrix rate is measured in the same type on the same threads.
"""

from __future__ import annotations

import copy
import json
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from ldm.autoencoder import GroupAutoencoder
from ldm.cached_attention import cached_attention
from ldm.channels import ChannelGroups
from ldm.flops import decoder_flops, unet_flops
from ldm.pipeline import CellPaintingPipeline
from ldm.sampler import SAMPLERS
from ldm.schedule import Schedule, trailing_steps
from ldm.sdxl import sdxl_shape
from ldm.unet import PAPER, UNetConfig, build_unet, predict
from service import resources

Progress = Callable[[int, int, str], None]
ON_A_GPU = "dopaint benchmark sampling --paper-batch 64 --paper-steps 50 --decode-paper --compile --batch 64"


@dataclass(frozen=True)
class SamplingConfig:
    """model: folder or shipped name. paper: time the paper's U-Net too. decode_paper: with SDXL's decoder (2.8 TFLOP a
    picture). steps, batch, repeats; student_steps: a further row with so few, 0 for none. device: "auto" takes a GPU.
    compile: rows with torch.compile too (CUDA graphs on a GPU). bfloat16: rows in it too.
    """

    model: str = "simulation-128"
    paper: bool = True
    decode_paper: bool = False
    steps: int = 15
    paper_steps: int = 2
    batch: int = 8
    paper_batch: int = 1
    repeats: int = 3
    student_steps: int = 4
    threads: int = 0
    device: str = "auto"
    compile: bool = False
    bfloat16: bool = True


@dataclass(frozen=True)
class Row:
    """One line of the table: times are seconds a batch, flop is of one picture."""

    network: str
    way: str
    steps: int
    batch: int
    seconds: float
    pictures_per_second: float
    gflop_per_picture: float
    gflops_reached: float
    share_of_matmul: float
    times_stock: float
    largest_difference: float  # from stock's latents, in their sd: the same computation


@dataclass(frozen=True, eq=False)
class Subject:
    """A network with what it is run with: latents' shape, tokens and pooled vector of one row, a decoder or none."""

    name: str
    unet: nn.Module
    tokens: Tensor
    pooled: Tensor
    autoencoder: GroupAutoencoder | None
    small: nn.Module | None
    steps: int
    batch: int

    @property
    def latent(self) -> tuple[int, int, int]:
        """Shape of a latent."""
        side = int(self.unet.config["sample_size"])  # type: ignore[index]
        return int(self.unet.config["in_channels"]), side, side  # type: ignore[index]


def synchronise(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(call: Callable[[], Any], repeats: int, device: torch.device) -> tuple[float, Any]:
    """Median seconds of a call after one warm-up, and what it gave last."""
    found = call()
    seconds = []
    for _ in range(repeats):
        synchronise(device)
        start = time.perf_counter()
        found = call()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), found


def matmul_rate(device: torch.device, dtype: torch.dtype, n: int | None = None) -> float:
    """FLOP a second of square matrix products, the best of three sizes."""
    sizes = (n,) if n else (2048, 4096, 8192) if device.type == "cuda" else (512, 1024, 2048)
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        seconds, _ = timed(lambda a=a, b=b: a @ b, 5, device)  # type: ignore[misc]
        best = max(best, 2.0 * size**3 / seconds)
    return best


def stock(subject: Subject, noise: Tensor, steps: int, decode: bool) -> tuple[Tensor, Tensor | None]:
    """diffusers' own loop; returns latents and pictures."""
    from diffusers import DPMSolverMultistepScheduler

    schedule = Schedule()
    scheduler = DPMSolverMultistepScheduler(
        schedule.steps,
        beta_start=schedule.beta_start,
        beta_end=schedule.beta_end,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        final_sigmas_type="zero",
    )
    scheduler.set_timesteps(steps, device=noise.device)
    takes_pooled = subject.unet.config["class_embed_type"] is not None  # type: ignore[index]
    b = len(noise)
    tokens, pooled = subject.tokens.expand(b, -1, -1), subject.pooled.expand(b, -1) if takes_pooled else None
    x = noise
    for t in scheduler.timesteps:
        v = subject.unet(x, t, encoder_hidden_states=tokens, class_labels=pooled).sample
        x = scheduler.step(v, t, x).prev_sample
    if not decode or subject.autoencoder is None:
        return x, None
    mean, sd = subject.autoencoder.scale()
    raw = x * sd.to(x) + mean.to(x)
    groups = len(subject.autoencoder.channels.groups)
    parts = [subject.autoencoder.vae.decode(part).sample for part in raw.chunk(groups, dim=1)]
    return x, torch.cat(parts, dim=1)


def ours(
    subject: Subject, unet: nn.Module, noise: Tensor, steps: int, dtype: torch.dtype, decode: nn.Module | None
) -> tuple[Tensor, Tensor | None]:
    """This project's loop: keys of the tokens kept, all groups decoded in one pass."""
    schedule, b = Schedule(), len(noise)
    tokens, pooled = (part.expand(b, *part.shape[1:]).contiguous() for part in (subject.tokens, subject.pooled))
    with torch.autocast(noise.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):

        def velocity(x: Tensor, t: int) -> Tensor:
            at = torch.full((b,), t, dtype=torch.int64, device=x.device)
            return predict(unet, x, at, tokens, pooled).float()

        # a compiled network keeps its own code for attention, and a CUDA graph must not keep tensors between calls
        with cached_attention(subject.unet) if unet is subject.unet else nullcontext():
            x = SAMPLERS["dpm++"](velocity, noise, schedule, trailing_steps(schedule, steps), lambda _: noise)
        if decode is not None:
            return x, decode(x)
        return x, None if subject.autoencoder is None else subject.autoencoder.decode(x)


def shipped(config: SamplingConfig, device: torch.device) -> Subject:
    """The shipped model (its own weights)."""
    folder = Path(config.model)
    pipeline = CellPaintingPipeline.from_pretrained(
        folder if folder.is_dir() else resources.path("models") / config.model
    )
    condition = pipeline.condition
    width, n = int(condition.config["width"]), condition.n_tokens
    g = torch.Generator().manual_seed(0)
    tokens, pooled = torch.randn(1, n, width, generator=g), torch.randn(1, int(condition.config["pooled"]), generator=g)
    pipeline.vae.to(device)
    small = None if pipeline.small is None else pipeline.small.to(device)
    return Subject(
        "shipped",
        pipeline.unet.to(device),
        tokens.to(device),
        pooled.to(device),
        GroupAutoencoder(pipeline.vae, pipeline.channels),
        small,
        config.steps,
        config.batch,
    )


def paper(config: SamplingConfig, device: torch.device, size: UNetConfig = PAPER) -> Subject:
    """The paper's U-Net and, if asked for, a decoder of SDXL's shape, with random weights."""
    with device:
        unet = build_unet(size).eval().requires_grad_(False)
        vae = sdxl_shape().eval().requires_grad_(False) if config.decode_paper else None
    g = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 5, size.token_width, generator=g).to(device)
    autoencoder = None if vae is None else GroupAutoencoder(vae, ChannelGroups())
    return Subject(
        "paper",
        unet,
        tokens,
        torch.zeros(1, 1, device=device),
        autoencoder,
        None,
        config.paper_steps,
        config.paper_batch,
    )


def flop_of(subject: Subject, steps: int, decoder: str) -> float:
    """FLOP of one picture: steps of the U-Net and one decoding."""
    unet = copy.deepcopy(subject.unet).to("meta")
    total = float(steps * unet_flops(unet, 1, subject.tokens.shape[1]))
    if decoder == "small" and subject.small is not None:
        total += decoder_flops(copy.deepcopy(subject.small).to("meta"), subject.latent)
    elif decoder == "full" and subject.autoencoder is not None:
        vae, groups = copy.deepcopy(subject.autoencoder.vae).to("meta"), len(subject.autoencoder.channels.groups)
        each = (subject.latent[0] // groups, *subject.latent[1:])
        total += groups * decoder_flops(lambda z: vae.decode(z).sample, each)
    return total


def ways(subject: Subject, config: SamplingConfig, device: torch.device) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of the ways to run a network."""
    found: list[tuple[str, dict[str, Any]]] = [("float32, kept keys, groups at once", {})]
    found.append(("channels last", {"last": True}))
    if config.bfloat16:
        found.append(("bfloat16", {"dtype": torch.bfloat16}))
        found.append(("bfloat16, channels last", {"dtype": torch.bfloat16, "last": True}))
    best: dict[str, Any] = {"dtype": torch.bfloat16, "last": True} if config.bfloat16 else {"last": True}
    if config.compile:
        found.append(("channels last, compiled", {"last": True, "compile": True}))
        if config.bfloat16:
            found.append(("bfloat16, channels last, compiled", best | {"compile": True}))
    if subject.small is not None:
        found.append(("small decoder", {"small": True}))
        if config.student_steps:
            found.append(("small decoder, few steps", {"small": True, "steps": config.student_steps}))
    elif config.student_steps:
        found.append(("few steps", {"steps": config.student_steps}))
    return found


def measure(
    subject: Subject, config: SamplingConfig, device: torch.device, rates: dict[torch.dtype, float]
) -> list[Row]:
    """All rows of one network."""
    g = torch.Generator().manual_seed(1)
    noise = torch.randn(subject.batch, *subject.latent, generator=g).to(device)
    decode = subject.autoencoder is not None
    with torch.no_grad():
        base, (reference, _) = timed(lambda: stock(subject, noise, subject.steps, decode), config.repeats, device)
        rows = [_row(subject, "stock diffusers", subject.steps, base, base, 0.0, rates[torch.float32], "full")]
        for name, options in ways(subject, config, device):
            dtype, steps = options.get("dtype", torch.float32), int(options.get("steps", subject.steps))
            kind = torch.channels_last if options.get("last") else torch.contiguous_format
            subject.unet.to(memory_format=kind)  # type: ignore[call-overload]
            run = subject.unet
            if options.get("compile"):
                mode = "reduce-overhead" if device.type == "cuda" else "default"
                run = torch.compile(subject.unet, mode=mode)  # type: ignore[assignment]
            small = subject.small if options.get("small") else None
            seconds, (latents, _) = timed(
                lambda run=run, steps=steps, dtype=dtype, small=small: ours(  # type: ignore[misc]
                    subject, run, noise, steps, dtype, small
                ),
                config.repeats,
                device,
            )
            gap = float((latents.float() - reference).abs().max() / reference.std()) if steps == subject.steps else -1.0
            rows.append(
                _row(subject, name, steps, seconds, base, gap, rates[dtype], "small" if small is not None else "full")
            )
        subject.unet.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return rows


def _row(
    subject: Subject, way: str, steps: int, seconds: float, base: float, gap: float, rate: float, decoder: str
) -> Row:
    flop = flop_of(subject, steps, decoder)
    reached = flop * subject.batch / seconds
    return Row(
        subject.name,
        way,
        steps,
        subject.batch,
        round(seconds, 4),
        round(subject.batch / seconds, 3),
        round(flop / 1e9, 2),
        round(reached / 1e9, 1),
        round(reached / rate, 4),
        round(base / seconds, 3),
        round(gap, 5),
    )


def run(config: SamplingConfig, out: Path | None = None, progress: Progress | None = None) -> dict[str, object]:
    """Measure everything; writes JSON to `out` (a file) if given. Returns what it writes; `rows` is the table."""
    threads = torch.get_num_threads()
    if config.threads:
        torch.set_num_threads(config.threads)
    name = ("cuda" if torch.cuda.is_available() else "cpu") if config.device == "auto" else config.device
    device = torch.device(name)
    tell = progress or (lambda *_: None)
    try:
        tell(0, 3, "measuring the matrix rate")
        types = [torch.float32, *([torch.bfloat16] if config.bfloat16 else [])]
        rates = {dtype: matmul_rate(device, dtype) for dtype in types}
        tell(1, 3, "timing the shipped model")
        rows = measure(shipped(config, device), config, device, rates)
        tell(2, 3, "timing the paper's U-Net")
        if config.paper:
            rows += measure(paper(config, device), config, device, rates)
        tell(3, 3, "done")
    finally:
        threads_used = torch.get_num_threads()
        torch.set_num_threads(threads)
    result: dict[str, object] = {
        "benchmark": "sampling",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": threads_used,
        "torch": torch.__version__,
        "matmul_gflops": {str(dtype).removeprefix("torch."): round(rate / 1e9, 1) for dtype, rate in rates.items()},
        "gpu": "measured" if device.type == "cuda" else f"not measured, no GPU here: {ON_A_GPU}",
        "config": asdict(config),
        "rows": [asdict(row) for row in rows],
    }
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def table(result: dict[str, Any]) -> pd.DataFrame:
    """The rows as a table for a terminal."""
    columns = ["network", "way", "steps", "batch", "pictures_per_second", "times_stock", "gflop_per_picture"]
    rows = pd.DataFrame(result["rows"])[[*columns, "gflops_reached", "share_of_matmul", "largest_difference"]]
    if result["gpu"] == "measured":
        return rows
    empty = dict.fromkeys(rows.columns, "") | {"network": "paper", "way": f"GPU, not measured: {ON_A_GPU}"}
    return pd.concat([rows.astype(object), pd.DataFrame([empty])], ignore_index=True)

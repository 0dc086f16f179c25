"""The model folder on disk: what must be there, what is refused, its settings and its hash."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ldm.channels import ChannelGroups
from ldm.config import from_table

SETTINGS_FILE = "dopaint.json"
PARTS = ("vae", "unet", "condition")
DECODER = "decoder"  # the optional small decoder
REQUIRED = ("model_index.json", SETTINGS_FILE, "intensity.json", "contexts.parquet", "scheduler/scheduler_config.json")
REFUSED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".npz")


class ModelFolderError(ValueError):
    """Raised when a model folder is missing, incomplete, damaged, changed, or holds weights that are not
    safetensors.
    """


@dataclass(frozen=True)
class PipelineSettings:
    """What the folder fixes, besides weights, so that a row determines its picture, and what it says about itself.

    micro_batch, threads: how the network is always run. sampler, steps, spacing: the default. evidence: "simulation" or
    "real". conditions: in words, for example "simulated". training_steps, training_minutes: what the weights took.
    decoder: "full", or "small" for the distilled one in the folder's `decoder`.
    """

    micro_batch: int = 8
    threads: int = 2
    sampler: str = "dpm++"
    steps: int = 15
    spacing: str = "quadratic"
    evidence: str = "simulation"
    conditions: str = "simulated"
    training_steps: int = 0
    training_minutes: float = 0.0
    decoder: str = "full"


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hashed_files(folder: Path) -> list[Path]:
    """The files that decide what a picture looks like: weights and configurations of every part, schedule,
    intensity scale, contexts.
    """
    files = [
        path
        for part in (*PARTS, DECODER, "scheduler")
        for path in sorted((folder / part).glob("*"))
        if path.suffix in (".safetensors", ".json")
    ]
    return [*files, folder / "intensity.json", folder / "contexts.parquet"]


def model_hash(folder: str | Path) -> str:
    """sha256 over names and contents of the files that decide a picture, and over micro-batch, threads, sampler and
    steps.

    Raises ModelFolderError when the folder is incomplete.
    """
    folder = Path(folder)
    require(folder)
    digest = hashlib.sha256()
    for path in hashed_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()} {file_hash(path)}\n".encode())
    settings, channels = read_settings(folder)
    digest.update(
        repr(
            (settings.micro_batch, settings.threads, settings.sampler, settings.steps, settings.spacing, channels)
        ).encode()
    )
    if settings.decoder != "full":
        digest.update(settings.decoder.encode())
    return digest.hexdigest()


def require(folder: Path) -> None:
    """Raise ModelFolderError when the folder or something that must be in it is missing."""
    if not folder.is_dir():
        raise ModelFolderError(
            f"model folder: {folder} does not exist; give the folder of a trained model, for example "
            "models/simulation-128"
        )
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    missing += [f"{part}/*.safetensors" for part in PARTS if not list((folder / part).glob("*.safetensors"))]
    refuse_pickles(folder)
    if missing:
        raise ModelFolderError(f"model folder: {folder} lacks {', '.join(missing)}; get the folder again")


def refuse_pickles(folder: Path) -> None:
    """Raise ModelFolderError, naming the file, when a part holds weights in a format other than safetensors."""
    for part in (*PARTS, DECODER):
        for path in sorted((folder / part).glob("*")):
            if path.suffix in REFUSED:
                raise ModelFolderError(
                    f"model folder: {path} is not safetensors and is never opened; convert the weights and remove the "
                    "file"
                )


def check_folder(folder: Path) -> None:
    """Raise ModelFolderError, naming the file, unless every part is there, is whole, and is what was written
    (sha256 in dopaint.json).
    """
    require(folder)
    content = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    written: dict[str, str] = content.get("files", {})
    for path in hashed_files(folder):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt") as handle:
                    list(handle.keys())
            except (SafetensorError, OSError) as error:
                raise ModelFolderError(
                    f"model folder: {path} is not a whole safetensors file ({error}); get the folder again"
                ) from error
        if name in written and written[name] != file_hash(path):
            raise ModelFolderError(
                f"model folder: {path} is not what was written (sha256 differs from {SETTINGS_FILE}); get the folder "
                "again"
            )
    lost = sorted(name for name in written if not (folder / name).is_file())
    if lost:
        raise ModelFolderError(
            f"model folder: {folder} lacks {lost[0]}, which {SETTINGS_FILE} names; get the folder again"
        )


def carry_over(base: Path, out: Path) -> None:
    """Begin the folder `out` of a model that is made of the model `base`: what belongs to neither weights nor schedule
    (settings of other rooms, the molecule encoder, the training compounds). The reference library is not carried over:
    another model needs another one.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in (SETTINGS_FILE, "training_compounds.parquet"):
        if (base / name).is_file():
            (out / name).write_bytes((base / name).read_bytes())
    if (base / "encoder").is_dir():
        shutil.copytree(base / "encoder", out / "encoder", dirs_exist_ok=True)


def forget_origin(path: Path) -> None:
    """Take out of a configuration where its weights once lay, so that a copy of a folder has the same hash."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.pop("_name_or_path", None) is not None:
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_settings(folder: Path, settings: PipelineSettings, channels: ChannelGroups) -> None:
    """Write dopaint.json: settings, channels, groups, and the sha256 of every hashed file. Other keys that the
    file already has are kept.
    """
    path = folder / SETTINGS_FILE
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    content |= asdict(settings) | {
        "channels": list(channels.names),
        "groups": [list(group) for group in channels.groups],
    }
    content["files"] = {file.relative_to(folder).as_posix(): file_hash(file) for file in hashed_files(folder)}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_settings(folder: Path) -> tuple[PipelineSettings, ChannelGroups]:
    """Settings and channel groups of a folder; keys of other rooms are left alone. Raises ModelFolderError when
    one is missing.
    """
    content = json.loads((folder / SETTINGS_FILE).read_text(encoding="utf-8"))
    own = {name: value for name, value in content.items() if name in PipelineSettings.__dataclass_fields__}
    lacking = [name for name in ("micro_batch", "threads", "channels", "groups") if name not in content]
    if lacking:
        raise ModelFolderError(
            f"model folder: {folder / SETTINGS_FILE} lacks {', '.join(lacking)}; get the folder again"
        )
    channels = ChannelGroups(tuple(content["channels"]), tuple(tuple(group) for group in content["groups"]))
    return from_table(PipelineSettings, own, str(folder / SETTINGS_FILE)), channels

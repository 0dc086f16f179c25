"""What the claim is tried on: compounds, allocations, recipes and sizes, from a TOML file of configs/benchmark."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ldm.config import from_table, read_toml
from service import resources
from service.errors import InvalidRequest, MissingModel

ENGINES = ("fast", "crude")
ALLOCATIONS = ("jump-like", "randomised")
VARIANTS = ("aware", "free")


@dataclass(frozen=True)
class ClaimConfig:
    """Sizes and seeds. Paths are relative to the TOML file.

    simulation: the world (configs/simulation). moas: mechanisms that compounds are taken from, `seen` and `unseen`
    compounds of each. wells: of each seen compound in the observed screen; `control_share` of all wells are DMSO.
    dial: of the JUMP-like allocation (1: every well in a home batch at a home position); the other one is 0.

    aware, free: recipes of the two diffusion models, which may differ in [condition] context alone. autoencoder: model
    whose autoencoder, and encoder: model whose molecule encoder all of them use. warm_start: model whose U-Net all of
    them begin with, its condition encoder thrown away, so that no knowledge of what compound or context does comes
    along; "": from nothing. pretrain_steps: unconditional steps on the observed pictures before, shared by all.

    draws: of the g-formula, and of the oracle. truth_draws, held_out_draws: of the truth in the batches of training,
    and in those that were held out. engine: "fast" (CellProfiler's columns), or "crude" (15 numbers, for trials).
    tabular_covariates, tabular_interactions: of the regressions. refits: bootstraps over wells of Harmony and ComBat.
    references: compounds a mechanism that make its sub-profile, in each of `folds`.
    """

    name: str = "claim"
    seed: int = 4711
    simulation: str = "../simulation/train.toml"
    size: int = 128
    moas: tuple[str, ...] = ()
    seen: int = 7
    unseen: int = 3
    wells: int = 40
    control_share: float = 0.12
    dial: float = 1.0
    val_share: float = 0.03
    aware: str = "../ldm/claim.toml"
    free: str = "../ldm/claim_scm_free.toml"
    seeds: tuple[int, ...] = (1, 2)
    autoencoder: str = "simulation-128"
    encoder: str = "simulation-128"
    warm_start: str = ""
    pretrain_steps: int = 0
    sampler_steps: int = 15
    draws: int = 12
    truth_draws: int = 48
    held_out_draws: int = 24
    engine: str = "fast"
    workers: int = 2
    correlation: float = 0.9
    tabular_covariates: tuple[str, ...] = ("plate", "edge", "across", "down")
    tabular_interactions: tuple[str, ...] = ("edge",)
    refits: int = 6
    references: int = 4
    folds: int = 5
    resamples: int = 1000

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InvalidRequest(f"engine: got {self.engine!r}, expected one of {', '.join(ENGINES)}")
        if len(set(self.moas)) < 2 or len(set(self.seeds)) < 2:
            raise InvalidRequest(
                f"claim: got {len(set(self.moas))} mechanisms and {len(set(self.seeds))} seeds, expected two or more "
                "of each: one training says nothing about the next"
            )
        if not 0.0 < self.dial <= 1.0:
            raise InvalidRequest(f"dial: got {self.dial}, expected above 0 (randomised) and at most 1 (JUMP-like)")
        if self.engine == "fast" and self.size != 128:
            raise InvalidRequest(f"size: got {self.size}, the engine 'fast' has settings for 128; give engine 'crude'")
        if not 0 < self.references < self.seen:
            raise InvalidRequest(
                f"references: got {self.references} of {self.seen} seen compounds a mechanism, expected fewer: the "
                "others are the queries"
            )


@dataclass(frozen=True)
class Claim:
    """A configuration and where its files are."""

    config: ClaimConfig
    simulation: Path
    recipes: dict[str, Path]
    autoencoder: Path
    encoder: Path
    warm_start: Path | None

    def dial(self, allocation: str) -> float:
        """The dial of an allocation by name."""
        return self.config.dial if allocation == ALLOCATIONS[0] else 0.0

    def document(self) -> dict[str, Any]:
        """Everything that determines a number, as a JSON object: settings, and hashes of the files they name."""
        files: dict[str, str] = {"simulation": _hash(self.simulation)}
        files |= {f"recipe {name}": _text_hash(read_toml(path)) for name, path in self.recipes.items()}
        files |= {"autoencoder": _folder_hash(self.autoencoder), "encoder": _folder_hash(self.encoder)}
        if self.warm_start is not None:
            files["warm start"] = _folder_hash(self.warm_start / "unet")
        document: dict[str, Any] = json.loads(json.dumps({"config": asdict(self.config), "files": files}))
        return document


def read_claim(path: Path) -> Claim:
    """Read a TOML file of configs/benchmark. Raises ConfigError, InvalidRequest, MissingModel."""
    config = from_table(ClaimConfig, read_toml(path), str(path))
    beside = path.resolve().parent
    recipes = {"aware": beside / config.aware, "free": beside / config.free}
    check_twins(recipes)
    simulation = (beside / config.simulation).resolve()
    if not simulation.is_file():
        raise InvalidRequest(f"simulation: {config.simulation!r} of {path} is no file; give one of configs/simulation")
    return Claim(
        config,
        simulation,
        recipes,
        model_folder(config.autoencoder, beside) / "vae",
        model_folder(config.encoder, beside) / "encoder",
        model_folder(config.warm_start, beside) if config.warm_start else None,
    )


def check_twins(recipes: dict[str, Path]) -> None:
    """Raise InvalidRequest unless both recipes say the same but for [condition] context: an equal training budget."""
    aware, free = (read_toml(recipes[name]) for name in VARIANTS)
    aware_context = aware.get("condition", {}).pop("context", True)
    free_context = free.get("condition", {}).pop("context", True)
    if aware != free or aware_context is not True or free_context is not False:
        raise InvalidRequest(
            f"recipes: {recipes['aware'].name} and {recipes['free'].name} must be equal but for context = false in the "
            "[condition] of the second: another difference would be in the comparison too"
        )


def model_folder(name: str, beside: Path) -> Path:
    """A folder beside the configuration, or a model below `models`. Raises MissingModel."""
    for folder in (beside / name, resources.path("models") / name):
        if folder.is_dir():
            return folder.resolve()
    raise MissingModel(f"model {name!r} is neither a folder beside the configuration nor one of the shipped models")


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _text_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _folder_hash(folder: Path) -> str:
    files = sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".json", ".model"))
    if not files:
        raise MissingModel(f"model: {folder} holds no weights")
    return _text_hash([(path.name, _hash(path)) for path in files])

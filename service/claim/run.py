"""The pipeline of the claim, stage by stage: `dopaint benchmark claim`.

truth, oracle; for each allocation observe, profiles, latents, start, train (two models, every seed), paint, profile;
then score. Every stage has its mark in the folder, so the same command goes on where it was stopped.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from profiling.profiles import Profiles
from service.claim import models
from service.claim.config import ALLOCATIONS, VARIANTS, Claim, read_claim
from service.claim.design import compounds_of, draws_of, with_positions
from service.claim.estimate import (
    DIFFUSION,
    ORACLE,
    Answer,
    Space,
    draws_answer,
    ensemble_answer,
    fit_space,
    tabular_answers,
)
from service.claim.measure import measure_all, profiles_of, rows_of
from service.claim.pictures import encode, observe, observed_blocks, painted_blocks, true_blocks
from service.claim.report import Result, write
from service.claim.score import Truth, score_all, verdict
from service.claim.sizes import check_sizes
from service.claim.stages import Progress, Stage, claim_folder, done, run_stages, seconds_taken

RIVALS = ("naive", "Harmony", "ComBat", "regression", "AIPW", "tabular g-formula", DIFFUSION["free"])


class Pipeline:
    """Where the parts of a claim lie in its folder, and what each stage does."""

    def __init__(self, claim: Claim, folder: Path, progress: Progress | None = None) -> None:
        self.claim, self.folder, self._progress = claim, folder, progress

    def tell(self, stage: str, done_: int, total: int) -> None:
        """What is going on within a stage."""
        if self._progress is not None:
            self._progress(done_, total, stage)

    def data(self, allocation: str) -> Path:
        """The training folder of an observed screen."""
        return self.folder / f"observed-{allocation}"

    def trained(self, allocation: str, variant: str, seed: int) -> Path:
        """Where a model is trained."""
        return self.folder / "models" / f"{allocation}-{variant}-{seed}"

    def measured(self, name: str) -> Path:
        """Where profiles are."""
        return self.folder / "profiles" / name

    def start(self, allocation: str) -> Path | None:
        """The model folder that all trainings of an allocation begin with."""
        if self.claim.config.pretrain_steps:
            return self.folder / "models" / f"{allocation}-start" / "model"
        return self.folder / "models" / "warm" if self.claim.warm_start else None

    def stages(self) -> list[Stage]:
        """All stages, in order."""
        found = [
            Stage("truth", partial(self._true, "truth")),
            Stage("truth/held-out", partial(self._true, "held out")),
            Stage("oracle", partial(self._true, "effects")),
        ]
        if self.claim.warm_start is not None:
            found.append(Stage("warm", self._warm))
        for allocation in ALLOCATIONS:
            found += self._of(allocation)
        return [*found, Stage("score", self._score)]

    def _of(self, allocation: str) -> list[Stage]:
        found = [
            Stage(f"observe/{allocation}", partial(self._observe, allocation)),
            Stage(f"profiles/{allocation}", partial(self._observed_profiles, allocation)),
            Stage(f"latents/{allocation}", lambda: encode(self.claim, self.data(allocation))),
        ]
        if self.claim.config.pretrain_steps:
            found.append(Stage(f"start/{allocation}", partial(self._pretrain, allocation)))
        each = [(variant, seed) for variant in VARIANTS for seed in self.claim.config.seeds]
        for what, run in (("train", self._train), ("paint", self._paint), ("profile", self._profile)):
            found += [Stage(f"{what}/{allocation}-{v}-{s}", partial(run, allocation, v, s)) for v, s in each]
        return found

    def _true(self, which: str) -> None:
        rows = draws_of(self.claim, which)
        pictures = partial(true_blocks, self.claim, rows)
        measure_all(
            self.claim.config, self.measured(which.replace(" ", "-")), rows, pictures, partial(self.tell, which)
        )

    def _warm(self) -> None:
        if self.claim.warm_start is not None:
            models.forget_conditions(self.claim.warm_start, self.folder / "models" / "warm", self.claim.config.seed)

    def _observe(self, allocation: str) -> None:
        observe(self.claim, allocation, self.data(allocation), partial(self.tell, f"observe/{allocation}"))

    def _observed_profiles(self, allocation: str) -> None:
        folder = self.data(allocation)
        rows = pd.read_parquet(folder / "rows.parquet")
        pictures = partial(observed_blocks, folder)
        tell = partial(self.tell, f"profiles/{allocation}")
        measure_all(self.claim.config, self.measured(f"observed-{allocation}"), rows, pictures, tell)

    def _pretrain(self, allocation: str) -> None:
        start = self.folder / "models" / "warm" if self.claim.warm_start else None
        models.pretrain(self.claim, self.data(allocation), self.folder / "models" / f"{allocation}-start", start)

    def _train(self, allocation: str, variant: str, seed: int) -> None:
        out = self.trained(allocation, variant, seed)
        models.train(self.claim, variant, seed, self.data(allocation), out, self.start(allocation))

    def _paint(self, allocation: str, variant: str, seed: int) -> None:
        trained = self.trained(allocation, variant, seed)
        tell = partial(self.tell, f"paint/{trained.name}")
        models.paint(self.claim, trained, draws_of(self.claim, "effects"), trained / "pictures", self.folder, tell)

    def _profile(self, allocation: str, variant: str, seed: int) -> None:
        trained, rows = self.trained(allocation, variant, seed), draws_of(self.claim, "effects")
        pictures = partial(painted_blocks, trained / "pictures", len(rows))
        tell = partial(self.tell, f"profile/{trained.name}")
        measure_all(self.claim.config, self.measured(trained.name), rows, pictures, tell)

    def _score(self) -> None:
        config, table = self.claim.config, compounds_of(self.claim)
        compounds = table["compound"].tolist()
        true = profiles_of(self.measured("truth"))
        space = fit_space(true, config.correlation)

        def effects_of(name: str) -> Answer:
            found = profiles_of(self.measured(name))
            return draws_answer(ORACLE, space.values(found), rows_of(found), compounds)

        truth = Truth(effects_of("truth").value, effects_of("held-out").value)
        oracle = effects_of("effects")
        answers = {a: [*self._answers(a, space, compounds), oracle] for a in ALLOCATIONS}
        scores = score_all(answers, truth, table, config)
        seen = table["seen"].to_numpy(bool)
        verdicts, by_seed = [], []
        for allocation, given in answers.items():
            named = {answer.method: answer for answer in given}
            ours = named[DIFFUSION["aware"]]
            for rival in RIVALS:
                for name, of in (("seen", seen), ("unseen", ~seen)):
                    found = verdict(ours, named[rival], truth.value, of, config)
                    verdicts.append({"allocation": allocation, "set": name, **found})
            for method in DIFFUSION.values():
                for seed, member in zip(config.seeds, named[method].members, strict=True):
                    error = np.sqrt(np.nanmean((member - truth.value)[seen] ** 2))
                    by_seed.append(
                        {"allocation": allocation, "method": method, "seed": seed, "rmse_seen": float(error)}
                    )
        result = Result(
            scores=scores,
            verdicts=pd.DataFrame(verdicts),
            seeds=pd.DataFrame(by_seed),
            facts={
                "evidence": "simulation",
                "engine": config.engine,
                "features": len(space.names),
                "compounds": {"seen": int(seen.sum()), "unseen": int((~seen).sum())},
                "mechanisms": list(config.moas),
                "wells": {a: self._wells(a, space) for a in ALLOCATIONS},
                "truth": {"draws": config.truth_draws, "draws in held-out batches": config.held_out_draws},
                "draws of models and oracle": config.draws,
                "dial": {a: self.claim.dial(a) for a in ALLOCATIONS},
                "budget of each model": models.budget(self.claim),
                "seconds": seconds_taken(self.folder, self.stages()),
            },
        )
        write(result, self.folder)
        for allocation in ALLOCATIONS:
            for variant in VARIANTS:
                for seed in config.seeds:
                    models.forget_pictures(self.trained(allocation, variant, seed) / "pictures")

    def _wells(self, allocation: str, space: Space) -> dict[str, int]:
        found: Profiles = profiles_of(self.measured(f"observed-{allocation}"))
        whole = int(np.isfinite(space.values(found)).all(axis=1).sum())
        return {"observed": len(found), "without cells, left out": len(found) - whole}

    def _answers(self, allocation: str, space: Space, compounds: list[str]) -> list[Answer]:
        observed = profiles_of(self.measured(f"observed-{allocation}"))
        design = draws_of(self.claim, "effects")
        one_a_draw = with_positions(design.drop_duplicates("draw").drop(columns="compound").reset_index(drop=True))
        wells = rows_of(observed)
        answers = tabular_answers(space.values(observed), wells, compounds, one_a_draw, self.claim.config)
        for variant, method in DIFFUSION.items():
            names = [self.trained(allocation, variant, seed).name for seed in self.claim.config.seeds]
            parts = [profiles_of(self.measured(name)) for name in names]
            answers.append(ensemble_answer(method, [space.values(p) for p in parts], rows_of(parts[0]), compounds))
        return answers


def run(config: Path, out: Path, progress: Progress | None = None, stop_after: str | None = None) -> dict[str, bool]:
    """Run what is left of a claim; gives every stage and whether it is done.

    Raises ConfigError, InvalidRequest, MissingModel, and what the rooms refuse.
    """
    claim = read_claim(config)
    check_sizes(claim, *models.recipe_of(claim, "aware", claim.config.seed)[:2])
    claim_folder(out, claim.document())
    stages = Pipeline(claim, out, progress).stages()
    run_stages(out, stages, progress, stop_after)
    return {stage.name: done(out, stage.name) for stage in stages}

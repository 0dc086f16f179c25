"""The claim as a pipeline: it goes on where it was stopped, has a row for every method, knows what is not defined."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from ldm.autoencoder import AutoencoderConfig, GroupAutoencoder, build_network
from ldm.channels import ChannelGroups
from ldm.pipeline import CellPaintingPipeline
from service.claim import measure as measuring
from service.claim.config import ALLOCATIONS, Claim, check_twins, read_claim
from service.claim.design import draws_of, painted_world
from service.claim.estimate import DIFFUSION, METHODS, ORACLE, TABULAR
from service.claim.measure import measure_all, profiles_of
from service.claim.models import forget_conditions, recipe_of
from service.claim.pictures import BLOCK, share_latents
from service.claim.run import Pipeline, run
from service.claim.sizes import check_sizes
from service.claim.stages import Stage, claim_folder, done, mark_of, run_stages
from service.cli import app
from service.errors import InvalidRequest

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
TINY = CONFIGS / "benchmark" / "claim_tiny.toml"
MIDDLE = "train/jump-like-aware-2"


@pytest.fixture(scope="module", autouse=True)
def same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny configuration with an untrained autoencoder, a hundredth of the shipped one."""
    folder = tmp_path_factory.mktemp("config")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = AutoencoderConfig(widths=(4, 4, 4, 4), latent_channels=8, norm_groups=2)
        GroupAutoencoder(build_network(size), ChannelGroups()).save(folder / "mine" / "vae")
    paths = {
        "extends": TINY,
        "simulation": CONFIGS / "simulation" / "tiny.toml",
        "aware": CONFIGS / "ldm" / "claim_tiny.toml",
        "free": CONFIGS / "ldm" / "claim_tiny_scm_free.toml",
        "autoencoder": "mine",
    }
    path = folder / "claim.toml"
    path.write_text("".join(f'{key} = "{value}"\n' for key, value in paths.items()))
    return path


@pytest.fixture(scope="module")
def claim(config: Path) -> Claim:
    return read_claim(config)


@pytest.fixture(scope="module")
def finished(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float], dict[str, bool]]:
    """A run that was stopped in the middle, and the times of the marks that were there then."""
    out = tmp_path_factory.mktemp("claim") / "run"
    halfway = run(config, out, stop_after=MIDDLE)
    marks = {name: mark_of(out, name).stat().st_mtime for name, finished in halfway.items() if finished}
    return out, marks, run(config, out)


def table(out: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads((out / "claim.json").read_text())["scores"])


def test_a_stopped_run_goes_on_and_repeats_nothing(
    claim: Claim, finished: tuple[Path, dict[str, float], dict[str, bool]]
) -> None:
    out, marks, stages = finished
    assert list(stages) == [stage.name for stage in Pipeline(claim, out).stages()]
    assert all(stages.values())
    assert MIDDLE in marks
    assert "train/jump-like-free-1" not in marks
    assert {name: mark_of(out, name).stat().st_mtime for name in marks} == marks
    assert run_stages(out, Pipeline(claim, out).stages()) == []
    assert not list(out.glob("models/*/pictures/*.npy")), "painted pictures are not needed once they are measured"
    assert not list(out.glob("models/*[12]/diffusion.safetensors"))


def test_every_method_has_its_row_and_tables_know_no_unseen_compound(
    finished: tuple[Path, dict[str, float], dict[str, bool]],
) -> None:
    out = finished[0]
    scores = table(out)
    wanted = {(a, m, s) for a in ALLOCATIONS for m in METHODS for s in ("seen", "unseen")}
    assert set(scores[["allocation", "method", "set"]].itertuples(index=False, name=None)) == wanted
    tabular = scores["method"].isin(TABULAR)
    unseen = scores["set"] == "unseen"
    numbers = scores.drop(columns=["allocation", "method", "set"])
    assert numbers[tabular & unseen].isna().all().all()
    assert (
        np.isfinite(numbers[~(tabular & unseen)][["rmse", "bias", "map_per_sample", "roc_auc"]].astype(float))
        .all()
        .all()
    )
    page = (out / "claim.md").read_text()
    assert page.count("not defined") >= 2 * len(TABULAR) * 10
    assert "A simulation" in page
    assert json.loads((out / "claim.json").read_text())["evidence"] == "simulation"
    assert (out / "claim.png").read_bytes().startswith(b"\x89PNG")


def test_the_oracle_beats_naive_where_compounds_are_confounded(
    finished: tuple[Path, dict[str, float], dict[str, bool]],
) -> None:
    scores = table(finished[0]).set_index(["allocation", "method", "set"])["rmse"].astype(float)
    assert scores["jump-like", ORACLE, "seen"] < 0.7 * scores["jump-like", "naive", "seen"]
    # the same world, compounds and wells, dealt at random: naive gets better, and only by the allocation
    assert scores["randomised", "naive", "seen"] < scores["jump-like", "naive", "seen"]
    assert scores["jump-like", ORACLE, "seen"] == scores["randomised", ORACLE, "seen"]


def test_verdicts_name_every_rival_and_untrained_models_do_not_win(
    finished: tuple[Path, dict[str, float], dict[str, bool]],
) -> None:
    verdicts = pd.DataFrame(json.loads((finished[0] / "claim.json").read_text())["verdicts"])
    seen = verdicts[(verdicts["set"] == "seen") & (verdicts["allocation"] == "randomised")]
    assert set(seen["theirs"]) == {*TABULAR, DIFFUSION["free"]}
    assert seen.set_index("theirs").loc["naive", "says"] == "loses to"  # three steps of training teach nothing
    unseen = verdicts[(verdicts["set"] == "unseen") & verdicts["theirs"].isin(TABULAR)]
    assert set(unseen["says"]) == {"is not defined beside"}


def test_both_models_have_one_budget_and_one_start(finished: tuple[Path, dict[str, float], dict[str, bool]]) -> None:
    models = finished[0] / "models"
    aware, free = (
        CellPaintingPipeline.from_pretrained(models / f"jump-like-{v}-1" / "model") for v in ("aware", "free")
    )
    assert aware.settings.training_steps == free.settings.training_steps == 2 + 2 + 3
    assert aware.condition.config["use_context"]
    assert not free.condition.config["use_context"]
    assert aware.known_contexts.equals(free.known_contexts)


def test_a_forgotten_condition_leaves_the_unet_alone(
    finished: tuple[Path, dict[str, float], dict[str, bool]], tmp_path: Path
) -> None:
    trained = finished[0] / "models" / "jump-like-aware-1" / "model"
    forget_conditions(trained, tmp_path / "warm", 3)
    before, after = (
        CellPaintingPipeline.from_pretrained(trained),
        CellPaintingPipeline.from_pretrained(tmp_path / "warm"),
    )
    assert all(torch.equal(a, b) for a, b in zip(before.unet.parameters(), after.unet.parameters(), strict=True))
    embedding = before.condition.batch.weight, after.condition.batch.weight
    assert not torch.allclose(*embedding, atol=1e-2)
    forget_conditions(trained, tmp_path / "again", 3)
    again = CellPaintingPipeline.from_pretrained(tmp_path / "again").condition.batch.weight
    assert torch.equal(embedding[1], again)


def test_another_configuration_is_refused_by_what_changed(tmp_path: Path) -> None:
    claim_folder(tmp_path, {"config": {"draws": 4, "wells": 3}})
    claim_folder(tmp_path, {"config": {"draws": 4, "wells": 3}})
    with pytest.raises(InvalidRequest, match=r"config\.draws"):
        claim_folder(tmp_path, {"config": {"draws": 5, "wells": 3}})


def test_a_stage_that_breaks_has_no_mark_and_is_done_again(tmp_path: Path) -> None:
    ran: list[str] = []

    def broken() -> None:
        ran.append("b")
        if len(ran) < 3:
            raise KeyboardInterrupt

    stages = [Stage("a", lambda: ran.append("a")), Stage("b", broken), Stage("c/d", lambda: ran.append("c"))]
    with pytest.raises(KeyboardInterrupt):
        run_stages(tmp_path, stages)
    assert done(tmp_path, "a")
    assert not done(tmp_path, "b")
    assert run_stages(tmp_path, stages, stop_after="b") == ["b"]
    assert run_stages(tmp_path, stages) == ["c/d"]
    assert ran == ["a", "b", "b", "c"]
    with pytest.raises(InvalidRequest, match="expected one of a, b, c/d"):
        run_stages(tmp_path, stages, stop_after="e")


def test_measuring_goes_on_after_the_last_whole_block(
    claim: Claim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = 2 * BLOCK + 5
    pictures = np.random.default_rng(0).uniform(0, 1, (n, 5, 8, 8)).astype(np.float32)
    rows = pd.DataFrame({"compound": [f"K{i}" for i in range(n)], "seed": np.arange(n, dtype=np.uint64)})
    asked: list[int] = []

    def given(first: int, breaks: bool) -> Iterator[np.ndarray]:
        for number in range(first, 3):
            if breaks and number == 1:
                raise KeyboardInterrupt
            asked.append(number)
            yield pictures[number * BLOCK : (number + 1) * BLOCK]

    with pytest.raises(KeyboardInterrupt):
        measure_all(claim.config, tmp_path, rows, lambda first: given(first, True), lambda *_: None)
    measure_all(claim.config, tmp_path, rows, lambda first: given(first, False), lambda *_: None)
    assert asked == [0, 1, 2]
    found = profiles_of(tmp_path)
    assert np.array_equal(found.values, measuring.simple_features(pictures))
    assert found.column("seed").tolist() == list(range(n))


def test_recipes_that_differ_in_more_than_the_context_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[unet]\nlayers = 1\n[condition]\nhidden = 8\n")
    (tmp_path / "b.toml").write_text('extends = "a.toml"\n[condition]\ncontext = false\n')
    check_twins({"aware": tmp_path / "a.toml", "free": tmp_path / "b.toml"})
    (tmp_path / "c.toml").write_text('extends = "b.toml"\n[unet]\nlayers = 2\n')
    for other in ("c", "a"):
        with pytest.raises(InvalidRequest, match="must be equal but for context"):
            check_twins({"aware": tmp_path / "a.toml", "free": tmp_path / f"{other}.toml"})


def test_shipped_configurations_can_be_read() -> None:
    claim = read_claim(TINY)
    small = read_claim(CONFIGS / "benchmark" / "claim_small.toml")
    assert small.warm_start is not None
    assert small.dial("jump-like") == 1.0
    assert small.dial("randomised") == 0.0
    assert claim.document()["files"]["recipe aware"] != claim.document()["files"]["recipe free"]


def test_a_recipe_of_another_size_is_refused_with_the_right_number() -> None:
    for name in ("claim_small", "claim_quick", "claim_tiny"):
        claim = read_claim(CONFIGS / "benchmark" / f"{name}.toml")
        unet, condition, _ = recipe_of(claim, "free", 1)
        check_sizes(claim, unet, condition)
        with pytest.raises(InvalidRequest, match="latent_channels = 4"):
            check_sizes(claim, replace(unet, latent_channels=4), condition)
    small = read_claim(CONFIGS / "benchmark" / "claim_small.toml")
    unet, condition, training = recipe_of(small, "free", 7)
    assert training.seed == 7
    with pytest.raises(InvalidRequest, match="widths = "):
        check_sizes(small, replace(unet, widths=(64, 64)), condition)
    with pytest.raises(InvalidRequest, match="hidden = 8"):
        check_sizes(small, unet, replace(condition, hidden=8))


def test_the_engine_fast_measures_painted_pictures_into_one_space() -> None:
    claim = read_claim(CONFIGS / "benchmark" / "claim_small.toml")
    config = replace(claim.config, workers=1)
    rows = draws_of(claim, "effects").groupby("compound", sort=False).head(2).iloc[:6].reset_index(drop=True)
    pictures = painted_world(claim).paint(rows)
    pictures[5] = 0.0  # a field without cells
    with measuring.measurer(config) as measure:
        values, names = measure(pictures)
    assert values.shape == (6, len(names))
    assert len(names) > 1000
    assert np.isfinite(values[:5]).mean() > 0.9
    assert np.isnan(values[5]).mean() > 0.9


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    told = CliRunner().invoke(
        app, ["benchmark", "claim", "--out", str(tmp_path), "--config", str(tmp_path / "no.toml")]
    )
    assert told.exit_code == 2
    assert "is not a file" in told.output
    assert not list(tmp_path.iterdir())


def test_latents_are_shared_not_copied(tmp_path: Path) -> None:
    (tmp_path / "data" / "latents").mkdir(parents=True)
    for name in ("latents.npy", "latents.json"):
        (tmp_path / "data" / "latents" / name).write_text(name)
    share_latents(tmp_path / "data", tmp_path / "out")
    share_latents(tmp_path / "data", tmp_path / "out")
    assert (tmp_path / "out" / "latents.npy").read_text() == "latents.npy"

"""Proofs about estimators on worlds whose truth is known: coverage, hidden causes, the dial of allocation.

Every study answers with a table: study, setting, estimator, the score of `causal.evaluate` and, where the design states
one, what was wanted and whether it holds. Everything here is a simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Float

from causal.baselines import (
    Estimate,
    aipw,
    corrected_difference,
    ipw,
    naive_difference,
    outcome_g_formula,
    regression_adjustment,
)
from causal.design import draw_contexts
from causal.diagnose import Question, negative_control_outcome, placebo_compound
from causal.evaluate import Score, score
from causal.gformula import Effects, EffectsAccumulator, g_formula
from causal.mechanism import TabularMechanism
from causal.sensitivity import robustness
from causal.stopping import StoppingRule, draw_until
from causal.tabular import COMPOUND, CONTROL, FEATURES, PLACEBO, TabularWorlds, WorldSettings, edge_of

Answer = TypeVar("Answer")
COVARIATES = ("plate", "edge")
FITTED = WorldSettings(source_interaction_sd=0.0)
"""Worlds in which the tabular mechanism is the right model; compounds differ by position only."""


def row(
    study: str,
    setting: str,
    estimator: str,
    numbers: Score | None = None,
    wanted: tuple[float, float] | None = None,
    **more: object,
) -> dict[str, object]:
    """One line of the table; ``wanted`` bounds the coverage."""
    line: dict[str, object] = {"study": study, "setting": setting, "estimator": estimator}
    if numbers is not None:
        line |= asdict(numbers)
    if wanted is not None and numbers is not None:
        line |= {"wanted": f"coverage {wanted[0]:.2f} to {wanted[1]:.2f}"}
        line |= {"holds": bool(wanted[0] <= numbers.coverage <= wanted[1])}
    return line | more


def known_mechanism(
    worlds: int, n_draws: int = 64, seed: int = 0, schemes: Sequence[str] = ("stratified", "sobol")
) -> pd.DataFrame:
    """Coverage where the mechanism is the world itself: naive, `draws`, `draws` under sequential stopping."""
    made = TabularWorlds.make(worlds, seed)
    truth = made.truth()[:, 0]
    rows = []
    for allocation, wanted in ((1.0, (0.0, 0.5)), (0.0, (0.93, 0.97))):
        setting = "JUMP-like allocation" if allocation else "randomised allocation"
        answers = each_world(made, allocation, seed + 1, _naive)
        rows.append(row("known mechanism", setting, "naive", _score(answers, truth), wanted))
    cap = 512
    difference, draws = paired_differences(made, cap, seed + 2)
    first = draws["draw"] < n_draws
    designs = {"iid": _by_world(difference[:, :n_draws], draws[first])}
    for scheme in schemes:
        designs[scheme] = _by_world(*paired_differences(made, n_draws, seed + 3, scheme))
    for scheme, effects in designs.items():
        scored = _score_effects(effects, truth)
        rows.append(row("known mechanism", f"{n_draws} {scheme} draws", "g-formula, draws", scored, (0.93, 0.97)))
    rule = StoppingRule(width=0.4, pilot=32, max_units=cap)
    for kind, wanted in (("two-stage", (0.93, 0.97)), ("sequence", (0.95, 1.0))):
        stopped = [draw_until(_stream(d), replace(rule, rule=kind)) for d in difference[:, :, :1]]
        value, low, high = (np.array([getattr(s, name)[0] for s in stopped]) for name in ("value", "low", "high"))
        scored = score(value, low, high, truth)
        units = float(np.mean([s.n_units for s in stopped]))
        rows.append(
            row(
                "known mechanism", f"stopped at width 0.4, {kind}", "g-formula, draws", scored, wanted, mean_draws=units
            )
        )
    return pd.DataFrame(rows)


def fitted_mechanism(worlds: int, seed: int = 0, n_draws: int = 16) -> pd.DataFrame:
    """Coverage of ``total`` where the mechanism is fitted on one finite confounded table."""
    made = TabularWorlds.make(worlds, seed, FITTED)
    truth = made.truth()[:, 0]
    effects = fitted_effects(made, 0.8, seed + 1, n_draws)
    rows = []
    for covers, wanted in (("draws", None), ("estimation", None), ("total", (0.92, 0.98))):
        ends = np.array([e.intervals(covers=covers)[e.compounds.index(COMPOUND), 0] for e in effects])
        value = np.array([e.value[e.compounds.index(COMPOUND), 0] for e in effects])
        scored = score(value, ends[:, 0], ends[:, 1], truth)
        rows.append(row("fitted mechanism", f"{n_draws} draws", f"g-formula, {covers}", scored, wanted))
    return pd.DataFrame(rows)


def hidden_confounder(worlds: int, seed: int = 0) -> pd.DataFrame:
    """A hidden cause of allocation and outcome: ours fails; what a placebo and a negative control see of it."""
    rows = []
    for hidden, shared, setting in (
        (0.0, True, "no hidden cause"),
        (1.0, True, "hidden, shared by the controls"),
        (1.0, False, "hidden, shared by no control"),
    ):
        settings = replace(FITTED, hidden=hidden, hidden_shared=shared)
        made = TabularWorlds.make(worlds, seed, settings)
        effects = fitted_effects(made, 0.8, seed + 1, 16)
        i = [e.compounds.index(COMPOUND) for e in effects]
        ends = np.array([e.intervals(covers="total")[j, 0] for e, j in zip(effects, i, strict=True)])
        value = np.array([e.value[j, 0] for e, j in zip(effects, i, strict=True)])
        scored = score(value, ends[:, 0], ends[:, 1], made.truth()[:, 0])
        wanted = (0.0, 0.5) if hidden else (0.92, 0.98)
        rows.append(row("hidden confounder", setting, "g-formula, total", scored, wanted))
        seen = each_world(made, 0.8, seed + 1, _controls)
        for name, found in zip(("placebo compound", "negative-control outcome"), np.array(seen).T[:2], strict=True):
            expected = (0.8, 1.0) if hidden and shared else (0.0, 0.1)
            power = float(found.mean())
            line = row("hidden confounder", setting, f"diagnose: {name}", detected=power, n=worlds)
            line |= {"wanted": f"detected {expected[0]:.2f} to {expected[1]:.2f}"}
            rows.append(line | {"holds": expected[0] <= power <= expected[1]})
        strength = float(np.median(np.array(seen)[:, 2]))
        rows.append(row("hidden confounder", setting, "sensitivity: robustness value", n=worlds, robustness=strength))
    return pd.DataFrame(rows)


def allocation_dial(worlds: int, seed: int = 0, dial: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0)) -> pd.DataFrame:
    """Every estimator from a randomised screen (0) to a JUMP-like one (1): bias, RMSE, coverage."""
    made = TabularWorlds.make(worlds, seed)
    truth = made.truth()[:, 0]
    target = draw_contexts(made.contexts, 256, "sobol", seed=seed)
    target["edge"] = edge_of(target)
    estimators: dict[str, Callable[[np.ndarray, pd.DataFrame], Estimate]] = {
        "naive": _naive,
        "plate-corrected": lambda v, t: corrected_difference(v, t, COMPOUND, CONTROL, centre_plates),
        "regression": lambda v, t: regression_adjustment(v, t, COMPOUND, CONTROL, COVARIATES),
        "IPW": lambda v, t: ipw(v, t, COMPOUND, CONTROL, COVARIATES),
        "AIPW": lambda v, t: aipw(v, t, COMPOUND, CONTROL, COVARIATES, interactions=["edge"]),
        "g-formula, fitted": lambda v, t: _standardised(v, t, COVARIATES, target),
        "g-formula, plate left out": lambda v, t: _standardised(v, t, ("batch", "edge"), target),
        "g-formula, batch and plate left out": lambda v, t: _standardised(v, t, ("source", "edge"), target),
    }
    simulator = _score_effects(_by_world(*paired_differences(made, 64, seed + 3)), truth)
    rows = []
    for allocation in dial:
        setting = f"{allocation:.2f}"
        rows.append(row("allocation dial", setting, "g-formula, simulator", simulator))
        for name, estimate in estimators.items():
            answers = each_world(made, allocation, seed + 1, estimate)
            rows.append(row("allocation dial", setting, name, _score(answers, truth)))
    return pd.DataFrame(rows)


def cell_count(tables: int, seed: int = 0) -> pd.DataFrame:
    """Adjusting for cell count answers another question: the direct effect, not the effect.

    The compound takes 2 off the log cell count and the feature is 1 t + 0.5 count: effect 0, direct effect 1.
    """
    rng = np.random.default_rng(seed)
    answers: dict[str, list[Estimate]] = {"effect": [], "direct effect": []}
    for _ in range(tables):
        t = rng.random(200) < 0.3
        batch = rng.integers(0, 4, 200)
        count = -2.0 * t + 0.3 * batch + rng.normal(size=200)
        values = (1.0 * t + 0.5 * count + 0.5 * batch + rng.normal(size=200))[:, None]
        table = pd.DataFrame({"compound": np.where(t, COMPOUND, CONTROL), "batch": batch.astype(str), "count": count})
        answers["effect"].append(regression_adjustment(values, table, COMPOUND, CONTROL, ["batch"]))
        answers["direct effect"].append(regression_adjustment(values, table, COMPOUND, CONTROL, ["batch", "count"]))
    rows = []
    for estimator, question in (("batch adjusted", "effect"), ("batch and cell count adjusted", "direct effect")):
        for asked, truth in (("effect", 0.0), ("direct effect", 1.0)):
            wanted = (0.92, 0.98) if asked == question else (0.0, 0.5)
            scored = _score(answers[question], np.full(tables, truth))
            rows.append(row("cell count", f"truth: {asked} {truth:.0f}", estimator, scored, wanted))
    return pd.DataFrame(rows)


def paired_differences(
    made: TabularWorlds, n: int, seed: int, scheme: str = "iid"
) -> tuple[Float[np.ndarray, "w n k"], pd.DataFrame]:
    """n draws in every world, each world its own: compound minus control under the same context and noise.

    Returns:
        differences [w, n, k] and the draws, world by world, numbered from 0 in each.
    """
    target = made.contexts.distribution("valid")
    if scheme == "iid":  # one stream cut into worlds
        draws = draw_contexts(made.contexts, len(made) * n, scheme, target, seed)
        draws["draw"] = np.tile(np.arange(n), len(made))
    else:
        each = [draw_contexts(made.contexts, n, scheme, target, seed * 10_000 + w) for w in range(len(made))]
        draws = pd.concat(each, ignore_index=True)
    world = np.repeat(np.arange(len(made)), n)
    treated = np.ones(len(draws), bool)
    difference = made.outcome(world, treated, draws) - made.outcome(world, ~treated, draws)
    return difference.reshape(len(made), n, -1), draws


def fitted_effects(made: TabularWorlds, allocation: float, seed: int, n_draws: int) -> list[Effects]:
    """Fit a tabular mechanism on each world's screen, then the g-formula with the error of the fit."""
    target = made.contexts.distribution("valid")

    def estimate(values: np.ndarray, table: pd.DataFrame) -> Effects:
        fitted = TabularMechanism.fit(values, table, CONTROL, COVARIATES, ["edge"])
        own_seed = int(table["seed"].iloc[0] % np.uint64(2**63))
        draws = draw_contexts(made.contexts, n_draws, "iid", target, own_seed)
        draws["edge"] = edge_of(draws)
        effects = g_formula(fitted, lambda v: v, [COMPOUND], draws, CONTROL, FEATURES, draws_at_once=n_draws)
        return fitted.with_error(effects, draws)

    return each_world(made, allocation, seed, estimate)


def each_world(
    made: TabularWorlds, allocation: float, seed: int, estimate: Callable[[np.ndarray, pd.DataFrame], Answer]
) -> list[Answer]:
    """An estimator on the screen of each world."""
    values, table = made.screens(allocation, seed)
    size = len(table) // len(made)
    return [estimate(values[i : i + size], table.iloc[i : i + size]) for i in range(0, len(table), size)]


def centre_plates(values: Float[np.ndarray, "n k"], table: pd.DataFrame) -> Float[np.ndarray, "n k"]:
    """Every plate minus the mean of its controls: the simplest batch correction."""
    plate = pd.factorize(table["plate"])[0]
    control = (table["compound"] == CONTROL).to_numpy()
    n = np.bincount(plate[control], minlength=plate.max() + 1)
    means = np.stack([np.bincount(plate[control], v[control], plate.max() + 1) / n for v in values.T], 1)
    return values - means[plate]


def _stream(values: Float[np.ndarray, "n k"]) -> Callable[[int, int], Float[np.ndarray, "b k"]]:
    return lambda start, count: values[start : start + count]


def _naive(values: np.ndarray, table: pd.DataFrame) -> Estimate:
    return naive_difference(values, table, COMPOUND, CONTROL)


def _standardised(values: np.ndarray, table: pd.DataFrame, covariates: Sequence[str], target: pd.DataFrame) -> Estimate:
    return outcome_g_formula(values, table, COMPOUND, CONTROL, covariates, interactions=["edge"], target=target)


def _controls(values: np.ndarray, table: pd.DataFrame) -> tuple[float, float, float]:
    """Whether the placebo and the negative control detect something; the robustness value of the effect."""
    question = Question(regression_adjustment, values[:, :1], table, COMPOUND, CONTROL, COVARIATES)
    placebo = placebo_compound(question, PLACEBO).detected
    outcome = negative_control_outcome(replace(question, values=values), [1]).detected
    answer = question.answer()
    strength = robustness(answer.value, answer.se, answer.df).value_to_null[0]
    return float(placebo), float(outcome), float(strength)


def _score(answers: Sequence[Estimate], truth: Float[np.ndarray, "n"]) -> Score:
    ends = np.array([a.intervals()[0] for a in answers])
    return score(np.array([a.value[0] for a in answers]), ends[:, 0], ends[:, 1], truth)


def _by_world(difference: Float[np.ndarray, "w n k"], draws: pd.DataFrame) -> Effects:
    """One effect per world from its own draws, by the library's accumulator."""
    worlds, n, k = difference.shape
    rows = draws[["draw", "scheme", "group"]].assign(compound=np.repeat(np.arange(worlds).astype(str), n))
    accumulator = EffectsAccumulator([f"f{i}" for i in range(k)])
    accumulator.update(difference.reshape(worlds * n, k), rows)
    return accumulator.effects()


def _score_effects(effects: Effects, truth: Float[np.ndarray, "n"]) -> Score:
    ends = effects.intervals()[:, 0]
    return score(effects.value[:, 0], ends[:, 0], ends[:, 1], truth)

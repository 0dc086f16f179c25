"""One page about one effect: estimate, assumed graph, refuters, support, and what nothing could have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from causal.diagnose import (
    Finding,
    Question,
    data_subset,
    leave_one_source_out,
    negative_control_outcome,
    permuted_allocation,
    placebo_compound,
    random_common_cause,
)
from causal.scm import PAPER_GRAPH, CausalGraph, check_adjustment
from causal.sensitivity import e_value_of_interval, robustness
from causal.support import support

BLIND = (
    "A hidden cause that no placebo compound and no negative-control feature shares leaves no trace in these data: the "
    "refuters above cannot see it, and their silence is no evidence against it."
)


def refute(
    question: Question, *, placebo: str | None = None, negative_features: Sequence[int] = (), seed: int = 0
) -> tuple[Finding, ...]:
    """All refuters that this question allows, in one fixed order."""
    found = []
    if placebo is not None:
        found.append(placebo_compound(question, placebo))
    if len(negative_features):
        found.append(negative_control_outcome(question, negative_features))
    found.append(permuted_allocation(question, repeats=49, seed=seed))
    found.append(random_common_cause(question, seed=seed))
    found.append(data_subset(question, seed=seed))
    if "source" in question.table.columns and len(set(question.table["source"])) > 1:
        found.append(leave_one_source_out(question))
    return tuple(found)


def report(
    question: Question,
    names: Sequence[str],
    draws: pd.DataFrame,
    *,
    adjusted: Sequence[str] = ("source", "batch", "plate", "well"),
    graph: CausalGraph = PAPER_GRAPH,
    placebo: str | None = None,
    negative_features: Sequence[int] = (),
    seed: int = 0,
) -> str:
    """Markdown about the effect of one compound.

    Args:
        question: estimator, wells and covariates.
        names: names of the features.
        draws: the contexts that the effect is averaged over, for the support.
        adjusted: nodes of the graph that the covariates stand for.
        graph: the graph that is assumed.
        placebo: an inert compound in the table, if there is one.
        negative_features: positions of features that the compound cannot move.
        seed: of the resampling refuters.
    """
    answer = question.answer()
    ends = answer.intervals()
    scale = question.values[(question.table["compound"] == question.control).to_numpy()].std(0, ddof=1)
    strength = robustness(answer.value, answer.se, answer.df)
    e = e_value_of_interval(ends[:, 0] / scale, ends[:, 1] / scale)
    lines = [
        f"# Effect of {question.compound} against {question.control} ({answer.method})",
        "",
        f"{answer.n_treated} wells of the compound, {answer.n_control} of the control. Intervals: estimation, 95 %.",
        "",
        "| feature | effect | low | high | robustness value | of the interval | E-value of the interval |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for j, name in enumerate(names):
        lines.append(
            f"| {name} | {answer.value[j]:.3g} | {ends[j, 0]:.3g} | {ends[j, 1]:.3g} | {strength.value_to_null[j]:.1%} "
            f"| {strength.interval_to_null[j]:.1%} | {e[j]:.2f} |"
        )
    lines += ["", "## Assumed graph", "", str(check_adjustment(graph, adjusted)), "", "## Support", ""]
    lines += [support(question.table, [question.compound], draws).sentence(question.compound), "", "## Refuters", ""]
    findings = refute(question, placebo=placebo, negative_features=negative_features, seed=seed)
    lines += [f"- {'**found**' if f.detected else 'not found'}: {f.name}: {f.sentence}" for f in findings]
    weakest = int(np.argmin(strength.value_to_null))
    lines += [
        "",
        BLIND,
        f"To explain the effect on {names[weakest]} away, it would have to explain "
        f"{strength.value_to_null[weakest]:.1%} of the residual variance of both treatment and outcome.",
    ]
    return "\n".join(lines) + "\n"

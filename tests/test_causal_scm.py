"""The graph: what the back-door criterion says about the paper's set, and do() as a transformer of programs."""

from itertools import combinations

import networkx as nx
import numpy as np
import pandas as pd
import pytest

from causal.contexts import Contexts
from causal.design import draw_contexts
from causal.scm import (
    PAPER_GRAPH,
    CausalGraph,
    InvalidGraph,
    NotIdentified,
    check_adjustment,
    load_graph,
    to_graphviz,
    to_mermaid,
)
from causal.tabular import linear_gaussian


def test_d_separation_equals_networkx_on_random_graphs():
    rng = np.random.default_rng(0)
    names = [f"v{i}" for i in range(7)]
    treatment, outcome = "v3", "v6"  # three nodes may lie before the treatment
    answers = {True: 0, False: 0}
    for _ in range(50):
        edges = [(a, b) for a, b in combinations(names, 2) if rng.random() < 0.35]
        if not {treatment, outcome} <= {n for e in edges for n in e}:
            continue
        graph = CausalGraph(tuple(edges), treatment, outcome)
        oracle = nx.DiGraph(edges)
        cut = oracle.copy()
        cut.remove_edges_from(list(oracle.out_edges(treatment)))
        others = [n for n in graph.nodes if n not in (treatment, outcome)]
        for z in (z for size in range(3) for z in combinations(others, size)):
            assert graph.separated(treatment, outcome, z) == nx.is_d_separator(oracle, {treatment}, {outcome}, set(z))
            # open paths say the same as d-separation in the graph without arrows out of the treatment
            if not set(z) & nx.descendants(oracle, treatment):
                closed = not graph.open_back_doors(z)
                assert closed == nx.is_d_separator(cut, {treatment}, {outcome}, set(z))
                answers[closed] += 1
    assert min(answers.values()) > 50


def test_the_derived_set_is_all_four_confounders():
    assert PAPER_GRAPH.adjustment_sets() == (frozenset({"source", "batch", "plate", "well"}),)


def test_source_batch_and_well_leave_plate_open_and_say_what_to_assume():
    answer = check_adjustment(PAPER_GRAPH, ["source", "batch", "well"])
    assert not answer.valid
    assert answer.open_paths == ("compound ← plate → picture", "compound ← plate → phenotype → picture")
    assert answer.assumptions == (
        "plate does not influence compound given batch, source, well; or it does not influence phenotype or picture "
        "given batch, source, well",
    )
    assert "is not enough" in str(answer)
    assert check_adjustment(PAPER_GRAPH, ["source", "batch", "plate", "well"]).valid


def test_either_assumption_makes_the_smaller_set_valid():
    for removed in ([("plate", "compound")], [("plate", "phenotype"), ("plate", "picture")]):
        graph = CausalGraph(tuple(e for e in PAPER_GRAPH.edges if e not in removed), unobserved=PAPER_GRAPH.unobserved)
        assert check_adjustment(graph, ["source", "batch", "well"]).valid


def test_adjusting_for_the_phenotype_or_a_cell_count_is_called_a_direct_effect():
    graph = CausalGraph(
        (*PAPER_GRAPH.edges, ("compound", "cell_count"), ("cell_count", "picture")), unobserved=PAPER_GRAPH.unobserved
    )
    answer = check_adjustment(graph, ["source", "batch", "plate", "well", "cell_count"])
    assert answer.after_treatment == {"cell_count"}
    assert not answer.valid
    assert "direct effect" in str(answer)
    assert all("cell_count" not in s for s in graph.adjustment_sets())


def test_do_cuts_the_arrows_into_the_treatment():
    after = PAPER_GRAPH.do("compound")
    assert after.parents("compound") == ()
    assert set(after.edges) == {e for e in PAPER_GRAPH.edges if e[1] != "compound"}
    assert after.open_back_doors() == ()
    with pytest.raises(InvalidGraph, match="unknown node 'dose'"):
        PAPER_GRAPH.do("dose")


def test_a_confounder_from_a_config_reaches_the_set_the_drawing_and_the_draws(repository):
    graph, conditions = load_graph(repository / "configs" / "causal" / "graph_dose_time_line.toml")
    (derived,) = graph.adjustment_sets()
    assert derived == {"source", "batch", "plate", "well", "dose", "time", "cell_line"}
    assert "dose --> compound" in to_mermaid(graph)
    assert '"cell_line" -> "picture";' in to_graphviz(graph)
    plates = {"source": ["S1"], "batch": ["S1B1"], "plate": ["S1B1P1"], "plate_format": [384]}
    draws = draw_contexts(Contexts(pd.DataFrame(plates), conditions=conditions), 4000, "sobol", seed=0)
    assert draws["cell_line"].value_counts(normalize=True)["U2OS"] == pytest.approx(0.75, abs=0.01)
    assert sorted(draws["dose"].unique()) == [1.0, 3.0, 10.0, 30.0]


def test_a_hidden_confounder_is_not_identified(tmp_path):
    path = tmp_path / "graph.toml"
    path.write_text('[[confounder]]\nname = "operator"\nobserved = false\n')
    graph, conditions = load_graph(path)
    assert conditions == ()
    with pytest.raises(NotIdentified, match="compound ← operator → picture"):
        graph.adjustment_sets()
    path.write_text('[[confounder]]\nname = "dose"\nvalue = [1.0]\n')
    with pytest.raises(InvalidGraph, match="unknown \\['value'\\]"):
        load_graph(path)
    with pytest.raises(InvalidGraph, match="its own cause"):
        CausalGraph((("compound", "picture"), ("picture", "compound")))


def test_drawings_mark_what_is_unobserved():
    assert "phenotype((phenotype)):::hidden" in to_mermaid(PAPER_GRAPH)
    assert '"phenotype" [shape=ellipse, style=dashed];' in to_graphviz(PAPER_GRAPH)
    assert to_mermaid(PAPER_GRAPH).count("-->") == len(PAPER_GRAPH.edges) == 17


@pytest.fixture(scope="module")
def linear():
    return linear_gaussian(c_to_t=0.8, c_to_y=-3.0, t_to_y=2.0)


def test_do_changes_only_what_lies_after_it_and_twins_share_their_noise(linear):
    before, after = linear.sample(500, seed=1), linear.do(t=1.0).sample(500, seed=1)
    assert (before["c"] == after["c"]).all()
    # the exact counterfactual of a linear model: y moves by 2 (1 - t)
    np.testing.assert_allclose(after["y"] - before["y"], 2.0 * (1.0 - before["t"]), atol=1e-12)


def test_intervening_is_not_conditioning(linear):
    sample = linear.sample(200_000, seed=2)
    observed_slope = np.cov(sample["t"], sample["y"])[0, 1] / sample["t"].var()
    done = linear.do(t=1.0).sample(200_000, seed=2)["y"].mean() - linear.do(t=0.0).sample(200_000, seed=2)["y"].mean()
    assert done == pytest.approx(2.0, abs=1e-9)
    assert observed_slope == pytest.approx(2.0 - 3.0 * 0.8 / 1.64, abs=0.02)  # cov(c, t) / var(t) = 0.8 / (0.64 + 1)

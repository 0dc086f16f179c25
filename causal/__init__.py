"""What would have happened: effects of compounds under do(compound = t), with error bars.

In come contexts (source, batch, plate, well) and two callables, a mechanism (design rows to pictures) and an outcome
(pictures to features); out go effects with the standard error of their draws and, for a fitted mechanism, of its
estimation. The same code runs on the simulator, whose truth is known, and on a generative model. No network here and
no molecule.
"""

from causal.contexts import CONTEXT_COLUMNS, Condition, Contexts, impossible, well_name, well_position
from causal.design import PRESETS, DrawPlan, cross, design_hash, draw_contexts, draw_plan, load_plan
from causal.gformula import Effects, EffectsAccumulator, contrast, g_formula, with_estimation

__all__ = [
    "CONTEXT_COLUMNS",
    "PRESETS",
    "Condition",
    "Contexts",
    "DrawPlan",
    "Effects",
    "EffectsAccumulator",
    "contrast",
    "cross",
    "design_hash",
    "draw_contexts",
    "draw_plan",
    "g_formula",
    "impossible",
    "load_plan",
    "well_name",
    "well_position",
    "with_estimation",
]

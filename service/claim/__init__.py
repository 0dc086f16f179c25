"""The claim: does a diffusion model that knows the confounders, averaged by the g-formula, get nearer to the true
effects of compounds than what people do with observed profiles? Asked in the painted world, whose truth is known, by a
pipeline of named stages that can be stopped and resumed anywhere.
"""

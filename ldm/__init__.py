"""Conditional latent diffusion: named channels to latents and back, condition tokens, the U-Net, its noise schedule
and samplers, and the pipeline that paints pictures for rows of a design. This room knows compound vectors and
contexts, never a SMILES; pictures are in [-1, 1] inside it.
"""

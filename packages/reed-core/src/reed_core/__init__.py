"""reed-core: diffusion models that know what they make.

A representation-guided diffusion model is a **process** that corrupts x, a **denoiser** that undoes it, **latents**
revealed over time, and a **curriculum**; the **objective** is their variational bound, and **samplers** run it
backwards. Each noun is a module of that name; import from there.
"""

__version__ = "0.1.0"

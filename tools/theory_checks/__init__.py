"""The checks behind `tools/theory.py`: one module for each part of the theory, random models, and the figures' limits.

* `check`: a measured figure, its limit, and how deviations are measured.
* `setting`, `setting_many`: random models with one and with several latents, and heads that contradict them.
* `joint` (D1, D2), `bound` (D3, D4, D14), `hybrid` (D5, D6, D16), `divergence` (D7, D8), `presets` (D10, D15),
  `heads` (D11), `masked` (D12), `samplers` (D13), `many` (D9, and the others for several latents).
* `measure`: all of it for one seed.
"""

"""cryostudy: a reproducible study of self-supervised cryo-electron-tomography restoration."""

__version__ = "0.1.0"

PROFILES = ("smoke", "laptop", "gpu")  # the scales of everything that runs: tests, a laptop, the papers' own

"""cryostudy: a reproducible study of self-supervised cryo-electron-tomography restoration."""

__version__ = "0.1.0"

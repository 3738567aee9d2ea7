"""The errors a user can mend. The command line prints their text as one line and exits with code 2."""


class CryostudyError(Exception):
    """Base of everything cryostudy refuses; its text names the file or parameter and the remedy."""


class InputError(CryostudyError):
    """A file, a volume or a parameter cannot be used as it is."""


class TrainingError(CryostudyError):
    """A training run stopped, because it diverged or a process of it was killed; the last good weights were kept."""

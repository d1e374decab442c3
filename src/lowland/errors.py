"""What goes wrong, and what to do about it: one sentence an error.

Every error that a user can cause is a `LowlandError`. Its text says what was expected, what came,
and what to do next; the command line prints it and exits with code 2.
"""


class LowlandError(Exception):
    """Base class of the errors that lowland raises on purpose.

    >>> issubclass(LayoutError, LowlandError)
    True
    """


class LayoutError(LowlandError, ValueError):
    """Weights that belong to another model, or have the wrong shape."""


class DataError(LowlandError, ValueError):
    """Batches, targets or loaders that do not fit the model or the task."""


class NonFiniteError(LowlandError, ArithmeticError):
    """NaN or infinite weights or loss."""


class StoreError(LowlandError, OSError):
    """A file that is damaged, foreign or in the way."""


class ConfigError(LowlandError, ValueError):
    """A setting that does not exist, or that makes no sense."""


class ArgumentError(ConfigError, TypeError):
    """A call with an argument that does not exist, or without one that must be there.

    Attributes:
        unknown: the name of an argument that does not exist.
    """

    def __init__(self, message: str, *, unknown: str | None = None) -> None:
        super().__init__(message)
        self.unknown = unknown

"""Why weights can't be used; each message names the file or model and the cure.

WeightsError (ValueError)
├── MissingWeights    no such file, folder or model on the hub
├── DamagedWeights    cut short, or no weights file at all
├── UnsafeWeights     a pickle that wants to run code
└── WrongWeights      another model's
"""


class WeightsError(ValueError):
    """Weights that can't be used."""


class MissingWeights(WeightsError):
    """No such file, folder or model on the hub."""


class DamagedWeights(WeightsError):
    """Cut short, or no weights file."""


class UnsafeWeights(WeightsError):
    """A pickle that wants to run code."""


class WrongWeights(WeightsError):
    """Another model's weights."""

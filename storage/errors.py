"""What can go wrong with bytes, as one tree.

    StorageError
    ├── ObjectNotFound      no object under that name
    │   └── Forgotten       it held images that were removed on request
    ├── AccessDenied        credentials or modes forbid it, or the place is read-only
    ├── BucketNotFound      the bucket does not exist
    ├── OutOfSpace          the disk, quota or bucket is full
    ├── StoreUnavailable    the store does not answer, after retries
    ├── DamagedObject       the bytes are not what their record says
    ├── DatasetError        the records of a dataset contradict each other
    ├── UnfitStore          the store does not keep what a dataset needs of it
    ├── Recalled            what was made holds images that were forgotten meanwhile: make it again
    ├── Overtaken           somebody else decided the same thing since this one looked: look again
    ├── LeaseLost           this driver was silent for so long that others count it as dead
    └── InputError          an input cannot be used: names it and the cure (also a ValueError)
        ├── NoSuchThing     what was asked for by name is not in the dataset (also an ObjectNotFound)
        ├── NoSuchThing     what was asked for by name isn't there (also an ObjectNotFound, a DatasetError)
        ├── SourceChanged   an input is no longer what the plan saw
        ├── SourceSilent    an input gives no bytes, as on a mount whose server is gone
        ├── SourceTooLarge  an input has more bytes than any picture that is allowed
        └── NotAFile        a pipe, socket or device stands where a file belongs

Every error carries one finished sentence and nothing else, so it survives pickling between processes.
Outside errors (OSError, botocore's) become ours with `from exc`. No message holds a credential.
"""

from __future__ import annotations

from maskmill.storage.secret_words import blank_secrets


class StorageError(Exception):
    """The base of everything storage/ raises on purpose; its sentence holds no secret, whatever was typed."""

    def __init__(self, *sentence: object) -> None:
        super().__init__(*(blank_secrets(one) if isinstance(one, str) else one for one in sentence))


class ObjectNotFound(StorageError):
    """No object under that name."""


class Forgotten(ObjectNotFound):
    """An object that held images which were removed on request."""


class AccessDenied(StorageError):
    """Reading or writing is forbidden."""


class BucketNotFound(StorageError):
    """The bucket does not exist."""


class OutOfSpace(StorageError):
    """The disk, quota or bucket is full."""


class StoreUnavailable(StorageError):
    """The store did not answer, or failed, after retries."""


class DamagedObject(StorageError):
    """An object's bytes are not what its record says."""


class DatasetError(StorageError):
    """The records of a dataset contradict each other."""


class UnfitStore(StorageError):
    """The store does not keep what a dataset needs of it."""


class Recalled(StorageError):
    """What was to be committed or published holds images that were forgotten meanwhile."""


class Overtaken(StorageError):
    """Somebody else decided the same thing since this one looked: to be looked at again, not overwritten."""


class LeaseLost(StorageError):
    """This driver was silent for so long that others count it as dead: it must not write any more."""


class InputError(StorageError, ValueError):
    """An input cannot be used: the message names it and says what to do."""


class NoSuchThing(ObjectNotFound, DatasetError, InputError):
    """A generation, tag, model, column or dataset that was asked for by name is not there; says what is."""


class SourceChanged(InputError):
    """An input is no longer what the plan saw."""


class SourceSilent(InputError):
    """An input gives no bytes: a disk or mount is gone."""


class SourceTooLarge(InputError):
    """An input has more bytes than any picture that is allowed; nothing of it was read."""


class NotAFile(InputError):
    """A pipe, socket or device stands where a file belongs; it is never opened."""

"""Errors that the person at the keyboard can mend, and warnings about the machine."""


class UserError(Exception):
    """Something that the user can mend: a file, a row, a setting, a full disk.

    The message is one sentence that names the file, row or setting, what was
    given and what was expected. The command line prints it and exits with
    code 2. In between, only code that adds to the message catches it, or that can
    do without what failed: one cell of the paper's tables, the built-in sample.
    """


class InputError(UserError, ValueError):
    """A mistake in what `TinyTextClassifier` was given; scikit-learn expects a ValueError there."""


class MachineWarning(RuntimeWarning):
    """Something that this machine lacks and that tinylm does without, such as a folder for the cache."""

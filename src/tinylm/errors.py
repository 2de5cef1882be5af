"""The exceptions that mean "the person at the keyboard can mend this"."""


class UserError(Exception):
    """A mistake in what the user gave: a file, a row, a setting.

    The message is one sentence that names the file, row or setting, what was
    given and what was expected. The command line prints it and exits with
    code 2; nothing else in the package catches it.
    """


class InputError(UserError, ValueError):
    """A mistake in what `TinyTextClassifier` was given; scikit-learn expects a ValueError there."""

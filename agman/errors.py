"""The one error that bad input raises."""


class InputError(ValueError):
    """Bad input from a person or a file.

    The message is one sentence that names the file, the row and the remedy, so that it can be
    shown as it is; the command line prints it and ends with exit code 2.
    """

"""The one exception that speaks to a person: what was received, what was expected, what to do."""


class InputError(ValueError):
    """Something a user gave (a file, an option, a configuration) cannot be used.

    The message is one line, without a traceback when it reaches a command line (`reed_core.console`): it says what was
    received, what was expected and what to do. Code that calls the library may catch it as a `ValueError`.
    """

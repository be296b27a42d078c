"""Errors that a user can act on: what, what was got, and what to do next."""

from __future__ import annotations


class UserError(Exception):
    """A mistake or a condition that the user can mend: the command line prints it without a traceback.

    `fix` says what to do next. `exit_code` is 1 where a run failed, 2 for bad usage or config.
    """

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        self.fix = fix
        super().__init__(f"{message}\n  -> {fix}" if fix else message)

    def __reduce__(self) -> tuple[type[UserError], tuple[str], dict[str, str]]:
        return (type(self), (self.args[0],), {"fix": self.fix})  # crosses process borders unchanged


class ConfigError(UserError):
    """A recipe, option or command line that cannot work."""

    exit_code = 2


class Remote(Exception):
    """The traceback of another process, as the cause of an error that came from there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"

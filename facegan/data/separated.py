"""How the cells of a table in text are separated: as usual or, where that does not fit, as its first row shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from facegan.core.errors import UserError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}


@dataclass(frozen=True)
class Form:
    """What lies between the cells of a row, and whether blanks around them are taken off."""

    separator: str
    blanks: bool = False

    def remark(self, usual: str) -> str:
        """What of it is not as usual, in words; empty where all is."""
        said = [f"separated by {SEPARATORS[self.separator]}"] if self.separator != usual else []
        return ", ".join([*said, *(["blanks around names and cells taken off"] if self.blanks else [])])

    def names(self, first_row: list[str]) -> list[str]:
        """The names of the columns."""
        return [name.strip() for name in first_row] if self.blanks else first_row


def find_form(
    first_row: Callable[[Form], list[str]], usual: str, fits: Callable[[list[str]], bool], where: Path
) -> Form:
    """The form in which the names of the columns are the ones wanted (`fits`): the usual one before all others.

    Where none is, the one with the most columns. Raises UserError where several other separators fit.
    """
    fitting: dict[str, Form] = {}
    closest, most = Form(usual), 0
    for separator in (usual, *(other for other in SEPARATORS if other != usual)):
        plain = first_row(Form(separator))
        for form in (Form(separator), Form(separator, blanks=True)):
            names = form.names(first_row(form))
            if form.blanks and (names == plain or _repeats(names)):
                continue
            if fits(names):
                if separator == usual:
                    return form
                fitting.setdefault(separator, form)
            if len(names) > most or form == replace(closest, blanks=True):
                closest, most = form, len(names)
    if len(fitting) > 1:
        readings = " or by ".join(SEPARATORS[separator] for separator in fitting)
        fix = "separate its cells by commas, with quotes around those that hold one"
        raise UserError(f"the columns of '{where}' are found whether it is separated by {readings}", fix=fix)
    return next(iter(fitting.values()), closest)


def _repeats(names: list[str]) -> bool:
    named = [name for name in names if name]
    return len(set(named)) < len(named)

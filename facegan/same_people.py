"""What the config says of people who stand under two names, done to a source's rows before they are split."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from facegan.config import Prepare
from facegan.errors import ConfigError
from facegan.forgotten import Without
from facegan.sources import SourceImage

LEFT_OUT = "left out by prepare.left_out"


def decided(options: Prepare, sources: Sequence[SourceImage]) -> tuple[list[SourceImage], list[SourceImage]]:
    """(rows, rows left out): those of prepare.same_people under the first name of their group, less prepare.left_out.

    Raises ConfigError where a list names somebody who is not in the source and was not erased from it.
    """
    first = {name: group[0] for group in options.same_people for name in group}
    if not (first or options.left_out):
        return list(sources), []
    have = {item.identity for item in sources}
    knows = options.source.knows if isinstance(options.source, Without) else lambda name: False
    missing = [name for name in (*first, *options.left_out) if name not in have and not knows(name)]
    if missing:
        near = difflib.get_close_matches(missing[0], have, 3)
        where = "same_people" if missing[0] in first else "left_out"
        raise ConfigError(
            f"prepare.{where} names '{missing[0]}', and nobody in the source is called that",
            fix=f"names are dataset/name{', such as ' + ', '.join(near) if near else ''}",
        )
    gone = set(options.left_out)
    kept = [replace(i, identity=first.get(i.identity, i.identity)) for i in sources if i.identity not in gone]
    return kept, [item for item in sources if item.identity in gone]

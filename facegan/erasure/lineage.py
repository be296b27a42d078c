"""What a working directory holds of a person, and what descends from it, by lineage: `facegan forget`."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from facegan.core.errors import UserError
from facegan.data import manifest
from facegan.data.names import forms
from facegan.data.preparation.photo_cache import FOLDER as DECODED
from facegan.data.sources.folder import METADATA
from facegan.recognition.saved_model import read_spec
from facegan.store import manifest_parts
from facegan.store.object_storage import remotes

RECORD = "record.json"
FACTS = ("identity", "image_id", "source_sha256", "parents", "generator")

OUTSIDE = ("import", "export")  # listed, and left to the user: not in the working directory


@dataclass(frozen=True)
class Target:
    """A folder to erase or, with the number of `rows`, one of OUTSIDE to list. `why` is a reason in words."""

    path: Path
    what: str
    why: str
    rows: int | None = None

    @property
    def unfinished(self) -> bool:
        """Whether nothing tells what it was made from."""
        return self.what == DECODED or self.path.name.endswith(".incomplete")

    @property
    def size_bytes(self) -> int:
        """Of all files in it."""
        return sum(status.st_size for status in statuses(self.path) if stat.S_ISREG(status.st_mode))


def statuses(path: Path) -> Iterator[os.stat_result]:
    """lstat of a file or folder and of all below it; what goes meanwhile (a run is at work) is left out."""
    below = (Path(folder, name) for folder, inner, names in os.walk(path) for name in (*inner, *names))
    for file in itertools.chain([path], below):
        with contextlib.suppress(FileNotFoundError):
            yield file.lstat()


@dataclass
class Descendants:
    """A person, by `names` and `photos` (sha256 of files and stored images), and what descends from them.

    `targets` are in the order to erase in: descendants before what they descend from. `unknown_origin` are folders that
    may descend from the person: what they were made from is gone. `n_photos` counts rows of prepare, `n_synthetic`
    images whose lineage holds the person.
    """

    names: set[str]
    photos: set[str] = field(default_factory=set)
    targets: list[Target] = field(default_factory=list)
    unknown_origin: list[Path] = field(default_factory=list)
    n_photos: int = 0
    n_synthetic: int = 0

    @property
    def spelled(self) -> set[str]:
        """`names` in each form of Unicode, and the other names of the same people in manifests made elsewhere."""
        return {form for name in self.names.union(*map(manifest.aliases, self.names)) for form in forms(name)}


@dataclass(frozen=True)
class OutputFolder:
    """A folder of the store, with its record (None where it is unfinished or unreadable)."""

    path: Path
    record: dict[str, Any] | None

    @property
    def stage(self) -> str:
        """The stage that made it."""
        return self.path.parent.name

    @property
    def outputs(self) -> set[str]:
        """sha256 of its files."""
        return {str(entry["sha256"]) for entry in (self.record or {}).get("outputs", {}).values()}

    @property
    def parents(self) -> set[str]:
        """The fingerprints of the stages that it was made from."""
        made_from = (self.record or {}).get("inputs", {}).values()
        return {str(entry["fingerprint"]) for entry in made_from if "fingerprint" in entry}

    @property
    def files(self) -> set[str]:
        """sha256 of the inputs that are no stage's outputs: a source, weights."""
        made_from = (self.record or {}).get("inputs", {}).values()
        return {str(entry["sha256"]) for entry in made_from if "sha256" in entry}


def find(names: set[str], workdir: Path, copies: list[Path]) -> Descendants:
    """Everything of the identities `names`, and of others that are the same people, in a working directory and `copies`
    (imports and exports)."""
    folders = list(folders_of(workdir / "data" / "store"))
    descendants = Descendants(_all_names(names, folders))
    existing = [path for path in copies if path.exists()]
    models = [
        path for path in sorted((workdir / "data" / "models").glob("*")) if path.is_dir() and not path.is_symlink()
    ]
    paths = [folder.path for folder in folders if folder.record is not None] + existing + models
    names = descendants.spelled
    for path in paths:
        for fact in facts(path):
            if fact.get("identity") in names and not fact.get("generator"):
                descendants.photos.update(sha for sha in (fact.get("image_id"), fact.get("source_sha256")) if sha)
    store = _erased(descendants, folders)
    erased = {target.path.name for target in store}
    outside = [target for path in existing if (target := _copy_target(descendants, path, erased)) is not None]
    promoted = [target for path in models if (target := _model_target(descendants, path, erased)) is not None]
    reports = _report_targets(descendants, workdir, erased)
    history = workdir / "data" / "prefect"
    is_ours = history.is_dir() and not history.is_symlink()
    prefect = [Target(history, "history", "Prefect's own: pictures and tables of runs")] if is_ours else []
    descendants.targets = [*prefect, *promoted, *reports, *outside, *store, *fetched(workdir)]
    return descendants


def fetched(workdir: Path) -> list[Target]:
    """What was fetched from object storage, where anything was."""
    path = workdir / "data" / "cache"
    return [Target(path, "cache", "fetched from object storage")] if path.is_dir() else []


def _all_names(names: set[str], folders: list[OutputFolder]) -> set[str]:
    """`names`, and the others under which runs took the same people (prepare.same_people)."""
    all_names = {form for name in names for form in forms(name)}
    lists = (group for f in folders for group in (f.record or {}).get("config", {}).get("same_people", ()))
    groups = [{form for name in group for form in forms(name)} for group in lists]
    while more := [group for group in groups if group & all_names and not group <= all_names]:
        all_names.update(*more)
    return all_names


def known_identities(workdir: Path, copies: list[Path]) -> set[str]:
    """Every identity in the manifests and quarantines of a working directory and of imports and exports."""
    paths = [
        f.path for f in folders_of(workdir / "data" / "store") if f.stage == "prepare" and f.record is not None
    ] + copies
    return {str(fact["identity"]) for path in paths if path.exists() for fact in facts(path) if fact.get("identity")}


def folders_of(root: Path) -> Iterator[OutputFolder]:
    """Every folder of the store at `root`, unfinished ones too, in the order of their paths."""
    for path in sorted(p for p in root.glob("*/*") if p.is_dir()):
        try:
            record = json.loads((path / RECORD).read_bytes())
            record["inputs"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            record = None
        yield OutputFolder(path, None if path.name.endswith(".incomplete") else record)


def facts(path: Path) -> Iterator[dict[str, Any]]:
    """Whom each row, sample or entry of the quarantine below `path` shows: a dict with some of the keys FACTS.

    Reads a folder of the store, an import, and what `facegan export` writes; raises UserError for a file of them that
    cannot be read.
    """
    tables = [path] if path.suffix == ".parquet" else sorted(path.rglob("*.parquet"))
    try:
        for table in tables:
            schema = pq.read_schema(table)
            columns = [name for name in FACTS if name in schema.names]
            for batch in pq.ParquetFile(table).iter_batches(columns=columns) if "identity" in columns else ():
                yield from batch.to_pylist()
        for shard in [path] if path.suffix == ".tar" else sorted(path.rglob("*.tar")):
            with tarfile.open(shard) as tar:
                for member in tar:
                    stream = tar.extractfile(member) if member.name.endswith(".json") else None
                    if stream is not None:
                        yield json.loads(stream.read())
        if (path / METADATA).is_file():
            for line in (path / METADATA).read_bytes().splitlines():
                yield json.loads(line)
    except (OSError, ValueError, tarfile.TarError) as error:  # pyarrow's errors are ValueErrors too
        fix = "mend or delete it, and give the command again: what cannot be read may show the person"
        raise UserError(f"something below '{path}' cannot be read: {error}", fix=fix) from error


def _shows(descendants: Descendants, fact: dict[str, Any]) -> bool:
    """Whether a row shows the person: by name, by the photo, or as a parent of someone who does not exist."""
    by_name = descendants.spelled & {fact.get("identity"), *(fact.get("parents") or ())}
    return bool(by_name or descendants.photos & {fact.get("image_id"), fact.get("source_sha256")})


def _erased(descendants: Descendants, folders: list[OutputFolder]) -> list[Target]:
    """Folders of the store that hold the person, then what was made from them, last made first."""
    words = [json.dumps(name).encode() for name in descendants.names]
    erased: set[str] = set()
    erased_outputs: set[str] = set()
    targets: list[Target] = []
    generators_of: dict[str, set[str]] = {}  # of a folder's rows: those of people made elsewhere are no inputs

    def take(folder: OutputFolder, why: str) -> None:
        erased.add(folder.path.name)
        erased_outputs.update(folder.outputs)
        targets.append(Target(folder.path, folder.stage, why))

    for folder in folders:
        if folder.stage == DECODED:
            take(folder, "photos decoded before, without names: the next run decodes them again")
        elif folder.record is None:
            take(folder, "unfinished: nothing tells what it was made from")
    for folder in (f for f in folders if f.record is not None):
        generators, matches = generators_of.setdefault(folder.path.name, set()), []
        for fact in facts(folder.path):
            generators |= {str(fact["generator"])} if fact.get("generator") else set()
            matches += [fact] if _shows(descendants, fact) else []
        if matches:
            descendants.n_photos += sum("image_id" in fact for fact in matches) if folder.stage == "prepare" else 0
            take(folder, "holds photos of theirs" if folder.stage == "prepare" else "shows or names them")
        elif any(word in (folder.path / RECORD).read_bytes() for word in words):
            take(folder, "its options name them")

    def descends(folder: OutputFolder) -> bool:
        generators = generators_of.get(folder.path.name, set())
        made_from_erased = _descends(folder, erased, erased_outputs) or bool(generators & erased)
        return folder.path.name not in erased and made_from_erased

    while more := [folder for folder in folders if descends(folder)]:
        for folder in more:
            take(folder, "descends from what holds or names them")
    made = [f for f in folders if f.record is not None and f.stage in ("synthesize", "derive")]
    for folder in (f for f in made if f.path.name in erased):
        descendants.n_synthetic += sum(1 for fact in facts(folder.path) if fact.get("generator"))
    stored = {folder.path.name for folder in folders}
    descendants.unknown_origin += [f.path for f in folders if f.path.name not in erased and f.parents - stored]
    return targets[::-1]


def _descends(folder: OutputFolder, names: set[str], outputs: set[str]) -> bool:
    """Whether it was made from a folder among `names`, or from a file (weights, say) that one of them wrote."""
    return bool(folder.parents & names or folder.files & outputs)


def _copy_target(descendants: Descendants, path: Path, erased: set[str]) -> Target | None:
    """An import or export that shows them, or what descends from them: listed, and left to the user."""
    matches = sum(1 for fact in facts(path) if _shows(descendants, fact) or fact.get("generator") in erased)
    if not matches:
        return None
    what = OUTSIDE[0] if (path / manifest_parts.FOLDER).is_dir() else OUTSIDE[1]
    return Target(path, what, "shows them or descends from them: delete it yourself, or make it again", matches)


def _model_target(descendants: Descendants, path: Path, erased: set[str]) -> Target | None:
    """A version of the model registry that descends from what is erased, or whose manifest held them."""
    if path.name.endswith(".incomplete"):
        return Target(path, "model", "unfinished: nothing tells what it was made from")
    if erased & set(read_spec(path)["lineage"]["stages"].values()):
        return Target(path, "model", "descends from what holds or names them")
    if any(_shows(descendants, fact) for fact in facts(path)):
        return Target(path, "model", "they were in the manifest of its run")
    return None


def _report_targets(descendants: Descendants, workdir: Path, erased: set[str]) -> list[Target]:
    """Reports of runs that held the person; those of unknown origin are added to `descendants.unknown_origin`."""
    store = {path.name for path in (workdir / "data" / "store").glob("*/*")}
    # The name p1 is not found in p12.
    words = [re.compile(re.escape(name.encode()) + rb"(?![\w-])") for name in descendants.names]
    targets = []
    for path in sorted(p for p in (workdir / "reports").glob("*/*") if p.is_dir() and not p.is_symlink()):
        if path.parent.name == "published":
            keys: set[str] = set()
        else:
            keys = behind_report(path)
        texts = [path / name for name in ("index.html", "report.md", "results.json")]
        if keys & erased:
            targets.append(Target(path, "report", "tells of a run that held them"))
        elif any(word.search(text.read_bytes()) for text in texts if text.is_file() for word in words):
            targets.append(Target(path, "report", "names them"))
        elif not keys & store and keys and remotes(workdir):
            targets.append(Target(path, "report", "its stages lay on object storage: nothing tells whom it shows"))
        elif not keys & store:
            descendants.unknown_origin.append(path)
    return targets


def behind_report(report: Path) -> set[str]:
    """The fingerprints of a report and of the stages behind it, as its results.json tells."""
    try:
        stages = json.loads((report / "results.json").read_bytes())["stages"]
        return {report.name, *(str(stage["key"]) for stage in stages)}
    except (OSError, ValueError, KeyError, TypeError):
        return {report.name}

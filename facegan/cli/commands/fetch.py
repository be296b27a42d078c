"""`facegan fetch lfw`: Labeled Faces in the Wild by scikit-learn's fetcher, which checks the sha256 of each file."""

from __future__ import annotations

import shutil
import socket
import warnings
from pathlib import Path

from facegan.core.errors import ConfigError, UserError
from facegan.core.files import user_path
from facegan.data.sources.lfw import LICENSE

HOME, PHOTOS, VIEW1 = "lfw_home", "lfw_funneled", "pairsDevTrain.txt"  # as the fetcher calls them
SILENCE_S = 60.0


def fetch(name: str, out: Path) -> list[str]:
    """Download the data set (once) below `out`; return the lines to print. Nothing else here uses the internet.

    Raises UserError where it cannot be had.
    """
    if name != "lfw":
        raise ConfigError(f"'{name}' cannot be fetched", fix="lfw can; bring others in with `facegan import`")
    out = user_path(out)
    home = out / HOME
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        from sklearn.datasets import fetch_lfw_people

        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        with warnings.catch_warnings(action="ignore"):
            # It also reads what it fetched: here only the one person with so many photos, made small.
            fetch_lfw_people(data_home=out, min_faces_per_person=500, resize=0.1, n_retries=2)
    except (OSError, ValueError, EOFError) as error:  # no network, another checksum, no room; a cut archive or folder
        raise UserError(
            f"LFW cannot be fetched: {error}",
            fix="give the command where there is internet (200 MB), or get lfw-funneled.tgz and the lists of pairs "
            f"elsewhere and put them into '{home}': it unpacks them. An unpacked '{home / PHOTOS}' that is not whole "
            "must be deleted first",
        ) from error
    finally:
        socket.setdefaulttimeout(before)
    shutil.rmtree(home / "joblib", ignore_errors=True)  # a cache of the small pictures
    return [
        f"{home / PHOTOS}: {LICENSE}",
        "its photos are not cropped to the face; a run that finds and aligns them (pip install 'facegan[imagenet]'):",
        f"  facegan run lfw-limited --set prepare.source.root={home / PHOTOS} --set prepare.source.pairs={home / VIEW1}"
        " --set 'prepare.align={detector: {kind: dlib}}'",
    ]

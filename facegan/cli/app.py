"""What every command of `facegan` shares: the program itself, common options, and the printing of errors."""

from __future__ import annotations

import errno
import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from facegan import __version__
from facegan.core.errors import ConfigError, Remote, UserError
from facegan.core.files import FORBIDDEN, user_path

main = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Would synthetic identities help my face recognizer, and can I believe the answer?\n\n"
    "`facegan run` goes from faces to a report with a verdict. After a change or an interruption give "
    "the same command again: what is done stays done.",
    epilog="Exit status: 0 done, 1 the run failed, 2 bad usage or config.",
)

RecipeArg = Annotated[str, typer.Argument(metavar="[RECIPE | FILE.yaml]", help="a recipe's name or a file")]
SetOpt = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=YAML", help="change an option: train_gan.gan.kind=dcgan (repeatable)"),
]
UntilOpt = Annotated[str | None, typer.Option("--until", metavar="STAGE", help="the last stage to run")]
WorkdirOpt = Annotated[Path, typer.Option("--workdir", metavar="DIR", help="holds data/store and reports")]
KnownOpt = Annotated[
    Path, typer.Option("--workdir", metavar="DIR", help="notes --out and knows who was erased: see forget")
]
JsonOpt = Annotated[str | None, typer.Option("--json", metavar="FILE", help="the answer as JSON; - is standard output")]
ModelOpt = Annotated[str | None, typer.Option("--model", metavar="VERSION", help="of `facegan models`; the current")]
AlignOpt = Annotated[
    bool | None, typer.Option("--align/--no-align", help="find and align the face; as in training if not given")
]
LogOpt = Annotated[bool, typer.Option("--log-json", help="one JSON object a line on standard error, for machines")]
# How the input of an embedder is made: InputOptions in facegan/evaluation/embedders.py
InputSideOpt = Annotated[int | None, typer.Option(metavar="PX", min=16, max=1024, help="side of the input")]
InputMeanOpt = Annotated[float | None, typer.Option(help="the input is (x - mean) / scale, x in 0 .. 255")]
InputScaleOpt = Annotated[float | None, typer.Option(help="see --mean")]
BgrOpt = Annotated[bool, typer.Option("--bgr", help="the input is blue, green, red")]
WeightsOpt = Annotated[Path | None, typer.Option(metavar="FILE", help="of timm:NAME, instead of a download")]
BatchOpt = Annotated[int, typer.Option(min=1)]
DeviceOpt = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N")]
# How a source says who is on an image: facegan/data/sources
DatasetOpt = Annotated[str | None, typer.Option("--dataset", help="first part of identity names")]
IdentityColumnOpt = Annotated[str | None, typer.Option("--identity-column", help="holds the person")]
ImageColumnOpt = Annotated[str | None, typer.Option("--image-column", help="holds the image or its path")]
ImagesOpt = Annotated[str | None, typer.Option("--images", metavar="DIR", help="where paths in a table start")]
LevelOpt = Annotated[
    int | None,
    typer.Option("--level", metavar="N", min=1, max=9, help="level of folders that is the people, 1: the top"),
]
Command = TypeVar("Command", bound=Callable[..., None])


class Terminated(BaseException):
    """SIGTERM as an exception, so that contexts end everything that was started."""


def reports_errors(command: Command) -> Command:
    """A command whose errors are printed as messages; only unexpected ones show a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        def show(text: str) -> None:
            if kwargs.get("log_json"):
                from facegan.console import json_log

                json_log.line(text, "error")
            else:
                typer.echo(f"facegan: {text}", err=True)

        try:
            command(*args, **kwargs)
        except typer.Exit:  # an exit status, nothing to be said
            raise
        except UserError as error:
            show(str(error))
            raise typer.Exit(error.exit_code) from None
        except (KeyboardInterrupt, Terminated) as error:
            show("stopped; the same command goes on from the last checkpoint")
            raise typer.Exit(143 if isinstance(error, Terminated) else 130) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                fix = "free some space, then give the same command again: it goes on from the last checkpoint"
                show(f"cannot write {error.filename or 'a file'}: {error.strerror}\n  -> {fix}")
                raise typer.Exit(1) from None
            if isinstance(error, OSError) and error.errno in FORBIDDEN and error.filename is not None:
                fix = "let this user read (or write) it, or give another path"
                show(f"'{error.filename}': {error.strerror}\n  -> {fix}")
                raise typer.Exit(1) from None
            text = str(error.__cause__) if isinstance(error.__cause__, Remote) else traceback.format_exc()
            show(f"this is a bug; please report it with what follows\n{text}")
            raise typer.Exit(1) from None

    return wrapped  # type: ignore[return-value]


@main.callback(invoke_without_command=True)
def _common(
    version: Annotated[bool, typer.Option("--version", help="show the version and exit")] = False,
) -> None:
    if version:
        typer.echo(f"facegan {__version__}")
        raise typer.Exit


def check_writable(path: str) -> None:
    """Raise ConfigError now rather than after the run when the answer could not be written."""
    if path != "-" and not user_path(path).absolute().parent.is_dir():
        raise ConfigError(
            f"--json {path}: its folder is not there", fix="make the folder, or use - for standard output"
        )
    if path != "-" and user_path(path).is_dir():
        raise ConfigError(f"--json {path} is a folder", fix="name a file, or use - for standard output")

"""The flow run by the command in its own process, on a Prefect server that is up or on a temporary one."""

from __future__ import annotations

from typing import cast

from facegan.core.errors import UserError
from facegan.pipeline.observer import RunObserver
from facegan.pipeline.publish import Finished
from facegan.pipeline.run import PlannedRun
from facegan.runtime.processes import AGAIN
from flows.service.server import prefect_server, server_error


def run(planned: PlannedRun, observer: RunObserver) -> Finished:
    """Run the planned run; `observer` gets its events. Raises UserError, with the first stage that fails."""
    with prefect_server(planned.workdir):
        from httpx import HTTPError
        from prefect.exceptions import CancelledRun

        from flows.pipeline import pipeline
        from flows.tasks import OBSERVER, PLANNED

        tokens = OBSERVER.set(observer), PLANNED.set(planned)
        try:  # a State only where it promotes
            return cast("Finished", pipeline(planned.recipe, str(planned.workdir), planned.until))
        except CancelledRun:
            raise UserError("the run was cancelled in Prefect", fix=AGAIN) from None
        except HTTPError as error:  # a full disk stops the server too
            raise server_error(planned.workdir, error) from None
        finally:
            OBSERVER.reset(tokens[0])
            PLANNED.reset(tokens[1])

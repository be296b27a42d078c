"""The Prefect flow, and what serves it. Of facegan only the command imports this, inside functions."""

import os

from facegan.runtime.processes import QUIET_ENVIRONMENT

for _name, _value in QUIET_ENVIRONMENT.items():  # before prefect and albumentations are imported
    os.environ.setdefault(_name, _value)

"""What runs facegan: the Prefect flow and the command line. facegan itself never imports this."""

import os

from facegan.runtime.processes import QUIET_ENVIRONMENT

for _name, _value in QUIET_ENVIRONMENT.items():  # before prefect and albumentations are imported
    os.environ.setdefault(_name, _value)

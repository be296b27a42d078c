"""`python -m facegan` is the command `facegan`."""

import sys

from facegan.cli.main import main

sys.exit(main())

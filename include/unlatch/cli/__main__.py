"""`python -m unlatch.cli`: the same as the command `unlatch`."""

import sys

from unlatch.cli.program import main

sys.exit(main())

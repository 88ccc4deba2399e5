"""`python -m runners.cli`, for where the command is not on PATH."""

import sys

from runners.cli import main

sys.exit(main())

"""`python -m cryostudy` is the command `cryostudy`."""

import sys

from cryostudy.cli import main

sys.exit(main())

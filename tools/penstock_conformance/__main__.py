"""`python -m penstock_conformance`."""

import sys

from penstock_conformance.cli import main

sys.exit(main())

"""`python -m spec.conformance`."""

import sys

from spec.conformance.command import main

sys.exit(main())

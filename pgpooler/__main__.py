"""`python -m pgpooler`: the same as the command `pgpooler`."""

from __future__ import annotations

import sys

from pgpooler.cli import main

if __name__ == "__main__":
    sys.exit(main())

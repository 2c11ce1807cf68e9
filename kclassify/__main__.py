"""``python -m kclassify`` is the ``kclassify`` command."""

import sys

from kclassify.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Search for the configuration that does best: `kclassify tune` as a script.

python scripts/tune.py cifar10 --tuner hyperband --max-trials 20 --time-budget 2h
"""

import sys

from kclassify.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))

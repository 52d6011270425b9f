"""The tutorial's entry point: `python main.py ...` is `ofa train ...`."""

import sys

from onceforall.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])

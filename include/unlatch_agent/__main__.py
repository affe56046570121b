"""``python3 -m unlatch_agent``: the same program as the shipped file."""

import sys

from unlatch_agent.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""The program `maskmill`, also `python -m maskmill`: the command line, which Ctrl-C ends with a word from its
first moment on, while it still imports itself.
"""

from __future__ import annotations

import sys

INTERRUPTED = 130


def main() -> None:
    """The entry point of `maskmill`. Exit code 130 after Ctrl-C."""
    try:
        from maskmill.flows.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()

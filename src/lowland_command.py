"""Where the command `lowland` begins: outside of the package, whose imports take seconds."""

import sys

STOPPED = 130  # what shells give for Ctrl-C


def main() -> None:
    """The command line; Ctrl-C ends it in one line, also while torch is imported."""
    try:
        from lowland.cli import main as run

        run()
    except KeyboardInterrupt:
        stopped()


def stopped() -> None:
    """Ends the process as shells end what Ctrl-C stopped."""
    print("\nlowland: stopped; run the same command again to go on.", file=sys.stderr)
    sys.exit(STOPPED)

"""`python -m infrastructure.simulator --port 9100`: the simulated providers as a process of their own."""

import argparse
import json
import sys

from infrastructure.simulator.server import run


def main() -> None:
    """Serve until told to stop; the first and only line on stdout says where."""
    parser = argparse.ArgumentParser(prog="python -m infrastructure.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100, help="of the control server; the providers follow it; 0: any")
    arguments = parser.parse_args()
    try:
        run(arguments.host, arguments.port, _print)
    except OSError as error:
        parser.error(str(error))


def _print(addresses: dict[str, str]) -> None:
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

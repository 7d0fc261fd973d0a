"""Runs the tests of the Python client: suite.py [NAME...] --servers HOST:PORT"""

import argparse
import logging
import os
import sys
import warnings

import harness
import operations  # noqa: F401 (registers its tests)
import recipes  # noqa: F401
import sessions  # noqa: F401
import words  # noqa: F401


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("names", nargs="*")
    arguments.add_argument("--servers", required=True)
    given = arguments.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    warnings.simplefilter("ignore")  # a missing chroot is what one test wants
    failed = harness.run(given.servers, set(given.names))
    sys.stdout.flush()
    os._exit(1 if failed else 0)  # threads of a client that hangs must not keep us


main()

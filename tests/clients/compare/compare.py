"""Sends every probe to Kafka and to Chronik; their answers must not differ unintended.

Usage: compare.py KAFKA CHRONIK, each host:port. NODES (environment) says of how many nodes both are. Only what a program may act on is compared: codes and fields, no prose.
"""

import os
import re
import sys

from client import Client
from intended import CLOSED, INTENDED
from probes import NOW, PROBES
from probes_of_clusters import PROBES as PROBES_OF_CLUSTERS
from wire import Closed

# How often a question is put to Kafka again whose answer differs.
KAFKA_ASKED_AGAIN = 2


def main():
    kafka, chronik = (Client(address, f"compare-{NOW:x}-{at}") for at, address in enumerate(sys.argv[1:3]))
    only = re.compile(os.environ.get("CHECKS", ""))
    passed = failed = 0
    probes = PROBES if os.environ.get("NODES", "1") == "1" else PROBES_OF_CLUSTERS
    for name, run in probes.items():
        if not only.search(name):
            continue
        expected, got = answer(kafka, run), answer(chronik, run)
        # Threads of Kafka hear of a new topic one after the other, and some answers depend on who has: one of them
        # must be ours. Chronik is asked once.
        for _ in range(KAFKA_ASKED_AGAIN if name not in INTENDED else 0):
            if expected == got:
                break
            expected = answer(kafka, run)
        problem = None
        reason = ""
        if name in INTENDED:
            wanted, reason = INTENDED[name]
            if expected == got:
                problem = f"is listed as different ({reason}) and is not: {got}"
            elif got != wanted:
                problem = f"is {got}, not {wanted} ({reason}); Kafka: {expected}"
        elif expected != got:
            problem = f"is {got}; Kafka: {expected}"
        elif "no comparable answer" in str(got):
            problem = got
        if problem is None:
            passed += 1
            print(f"ok {name}{reason and f' (differs: {reason})'}", flush=True)
        else:
            failed += 1
            print(f"FAIL {name} {problem}", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


def answer(client, run):
    try:
        return run(client)
    except Closed:
        return CLOSED
    except (AssertionError, OSError, ValueError, IndexError) as error:
        return f"no comparable answer: {error!r}"


if __name__ == "__main__":
    sys.exit(main())

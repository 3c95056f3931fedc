"""Random drivers in a random world, judged from outside; open-ended by hand, a few rounds in the tests.

    python benchmarks/chaos.py --rounds 200
    python benchmarks/chaos.py --minutes 60 --seed 100000
    python benchmarks/chaos.py --replay 4711

Every round is a run in the model world of `tests/crash_world.py`: its drivers are killed, cancelled, stalled and cut
off, its instances reclaimed, hidden, refused, its documents written by other versions. A round that breaks a promise
is printed with its seed, and makes the exit code 1.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from chaos_round import play_round, use_memory_for_scratch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=0, help="how many; by default until --minutes are over")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--replay", type=int, help="play this one round and print it whole")
    options = parser.parse_args()
    use_memory_for_scratch()
    if options.replay is not None:
        print(play_round(options.replay))
        return 0
    counts, began, seed = Counter(), time.monotonic(), options.seed
    while (
        (seed - options.seed < options.rounds)
        if options.rounds
        else time.monotonic() - began < 60 * options.minutes
    ):
        done = play_round(seed)
        counts.update(rounds=1, drivers=done.drivers, instances=done.instances, faults=done.faults)
        counts[done.outcome] += 1
        for text in done.broken:
            counts["broken " + text.partition(":")[0]] += 1
        if done.broken:
            print(f"seed {seed}: {done.broken}")
        seed += 1
    counts["seconds"] = round(time.monotonic() - began)
    print(json.dumps(counts))
    return int(any(name.startswith("broken") for name in counts))


if __name__ == "__main__":
    raise SystemExit(main())

"""Chaos: runs in random worlds whose drivers meet random faults, judged from outside, until the time is over.

    python benchmarks/chaos.py --rounds 200
    python benchmarks/chaos.py --minutes 60 --seed 100000
    python benchmarks/chaos.py --replay 4711
    python benchmarks/chaos.py --real --minutes 20

A model of the world plays days in milliseconds, with every limit as it is. With --real, `offload` processes drive a
simulated cloud whose instances train; only the wait for an instance that EC2 may show late is as short as that cloud's
lag. A round that breaks a promise is printed with its seed, and makes the exit code 1.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> int:
    """Play rounds, print the counts, and return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=0, help="how many; by default until --minutes are over")
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0, help="of the first round")
    parser.add_argument("--replay", type=int, help="play this one round and print it whole")
    parser.add_argument("--real", action="store_true", help="with processes on the simulated cloud")
    options = parser.parse_args()
    play = play_processes if options.real else play_model
    if options.replay is not None:
        text, _, broken = play(options.replay)
        print(text, *broken, sep="\n")
        return int(bool(broken))
    counts, began, seed = Counter(), time.monotonic(), options.seed
    while (
        (seed - options.seed < options.rounds)
        if options.rounds
        else time.monotonic() - began < 60 * options.minutes
    ):
        text, found, broken = play(seed)
        counts.update(found, rounds=1)
        counts.update("broken " + promise.partition(":")[0] for promise in broken)
        if broken:
            print(f"seed {seed}: {broken}\n{text}", flush=True)
        seed += 1
    counts["seconds"] = round(time.monotonic() - began)
    print(json.dumps(counts))
    return int(any(name.startswith("broken") for name in counts))


def play_model(seed: int) -> tuple[str, Counter, list[str]]:
    """Play a round in the model of the world; return what it was, its counts and the broken promises."""
    from chaos_round import play_round, use_memory_for_scratch

    use_memory_for_scratch()
    done = play_round(seed)
    counts = Counter(drivers=done.drivers, instances=done.instances, faults=done.faults)
    return str(done), counts + Counter([done.outcome]), done.broken


def play_processes(seed: int) -> tuple[str, Counter, list[str]]:
    """Play a round with real processes; see `play_model`."""
    from chaos_processes import play_round

    done = play_round(seed)
    return done.told, done.counts, done.broken


if __name__ == "__main__":
    raise SystemExit(main())

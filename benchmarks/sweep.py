"""The same sweep of small real trainings on this CPU, on simulated instances and on a Ray cluster, disturbed, and judged from outside.

    python benchmarks/sweep.py [--values 4] [--seeds 3] [--epochs 10] [--parallel 4] [--dice 0] [--only cpu|ec2|ray]
                               [--reports FOLDER]

Ultralytics trains a classifier on generated pictures with some learning rates and seeds. On this CPU the sweep is
interrupted (SIGINT) at a random moment and carried on by the same command. On the simulated EC2 a small budget ends it
early first, a larger one continues it, two instances are reclaimed without notice, and it is interrupted, too. The Ray
cluster has two nodes of one CPU each, real raylets on this machine; the sweep is interrupted, carried on, and one node is
cut off in the middle of a training. The rankings are compared, also with those that an earlier call left in `--reports`.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from commands import OFFLOAD

from gpu_offload.dataset.synthetic import generate
from gpu_offload.dataset.task import Task
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.registry.publish import versions

STORE = "s3://gpu-offload/sweep"
RATES = (2e-3, 1e-6, 3e-2, 3e-4, 1e-4, 1e-2, 1e-3, 1e-1)
RECLAIMED = 2
EARLY = 1.05
"""The small budget, as a multiple of the upper estimate of one training: it lets few begin."""


def main() -> int:
    """Run the sweeps, print the table, and return 1 where a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--values", type=int, default=4, help=f"learning rates, at most {len(RATES)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--parallel", type=int, default=4, help="instances at a time")
    parser.add_argument("--dice", type=int, default=0, help="seed of the moments of the interruptions")
    parser.add_argument("--only", choices=list(PLACES))
    parser.add_argument("--reports", type=Path, help="a folder to keep the reports in, and to compare with")
    options = parser.parse_args()
    dice, broken, reports = random.Random(options.dice), [], {}
    print("| where | trainings | interrupted after | reclaimed | instances left | time | cost | ranking |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for where, play in PLACES.items():
        kept = options.reports and options.reports / f"{where}.json"
        if options.only in (None, where):
            with tempfile.TemporaryDirectory(prefix="sweep-") as name:
                reports[where], faults = play(Path(name), options, dice)
            broken += [f"{where}: {fault}" for fault in faults]
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(reports[where], indent=1))
        elif kept and kept.exists():
            reports[where] = json.loads(kept.read_text())
    for (one, first), (other, second) in itertools.combinations(reports.items(), 2):
        from sweep_judge import largest_difference, ranking_faults

        broken += [f"{one} and {other}: {fault}" for fault in ranking_faults(first, second)]
        print(
            f"{one} and {other}: the same training differs by at most {largest_difference(first, second):.4g}"
        )
    print(*(f"BROKEN {fault}" for fault in broken), sep="\n")
    return int(bool(broken))


def project(folder, options, *, store):
    """Make the project; pictures of 48 pixels, which a small classifier learns to tell apart in seconds."""
    generate(folder / "shapes", images=150, size=48, task=Task.CLASSIFY)
    (folder / "offload.toml").write_text(
        f"""
[dataset]
path = "shapes"
[training]
model = "yolov8n-cls.yaml"
epochs = {options.epochs}
image-size = 32
batch = 8
hyperparameters = {{optimizer = "AdamW"}}
[store]
url = "{store}"
[ec2]
regions = ["us-east-1"]
instance-types = ["g4dn.xlarge"]
[sweep]
lr0 = {list(RATES[: options.values])}
seed = {options.seeds}
prune = false
"""
    )


def on_cpu(folder, options, dice):
    """Sweep on this CPU, interrupted once."""
    from sweep_judge import sweep_faults

    project(folder, options, store="file:store")
    command, began = ("sweep", "--on", "cpu", "--json"), time.monotonic()
    after, faults = interrupted(folder, command, dice.uniform(5, 90))
    report = finished(folder, command)
    seconds = time.monotonic() - began
    trainings = options.values * options.seeds
    faults += sweep_faults(
        open_store(f"file:{folder / 'store'}"), report, trainings=trainings, epochs=options.epochs
    )
    row("this CPU", report, trainings, after, 0, 0, seconds)
    return report, faults


def on_ec2(folder, options, dice):
    """Sweep on simulated instances: ended by its budget, continued, interrupted, continued, with reclaims."""
    from chaos_processes import lives_of
    from sweep_judge import sweep_faults

    from gpu_offload.infra.simulator.behaviour import Behaviour
    from gpu_offload.infra.simulator.cloud import SimulatedCloud

    project(folder, options, store=STORE)
    command = ("sweep", "--on", "ec2", "--parallel", str(options.parallel), "--json")
    environment, faults, trainings = dict(os.environ), [], options.values * options.seeds
    with SimulatedCloud(Behaviour(vanish_seconds=3600.0)) as cloud:
        os.environ |= cloud.environment()
        try:
            began = time.monotonic()
            plan = finished(folder, (*command, "--plan"))
            [place] = [one for one in plan["places"] if one["chosen"]]
            budget = EARLY * place["cost_high_usd"]
            early = finished(folder, (*command, "--budget-usd", f"{budget:.4f}"), codes=(0, 1))
            faults += [f"the budget did not end it: {early}"] if "budget" not in str(early) else []
            cloud.settle()
            faults += [f"left after the budget's end: {left}"] if (left := cloud.leftovers()) else []
            store = open_store(STORE)
            few = len(versions(store)) + dice.randint(1, trainings // 4)
            # Enough must be left to train for the instances that are reclaimed afterwards.
            after, found = interrupted(
                folder, command, dice.uniform(0, 10), begun=lambda: len(versions(store)) >= few
            )
            faults += found
            cloud.settle()
            # Security groups of a terminated instance cost nothing; the command that carries on removes them.
            faults += (
                [f"left after the interruption: {left}"] if (left := cloud.leftovers()).costs_money else []
            )
            cloud.inject(f"instance:reclaim:no-notice:after=epoch={options.epochs // 2}:times={RECLAIMED}")
            report = finished(folder, command)
            seconds = time.monotonic() - began
            cloud.settle()
            faults += [f"left: {cloud.leftovers()}"] if cloud.leftovers() else []
            lives = lives_of(cloud)
            taken = sum(by_cloud for _, _, by_cloud in lives.values())
            faults += [] if taken == RECLAIMED else [f"{taken} instances were reclaimed"]
            faults += sweep_faults(
                open_store(STORE),
                report,
                trainings=trainings,
                epochs=options.epochs,
                lives=lives,
                lost=taken + options.parallel,
            )
            row(
                f"EC2, {options.parallel} at a time",
                report,
                trainings,
                after,
                taken,
                len(cloud.leftovers().instances),
                seconds,
            )
        finally:
            os.environ.clear()
            os.environ.update(environment)
    spent = sum(trial.get("cost_usd", 0.0) for trial in early.get("trials", []))
    print(f"the budget of ${budget:.4f} ended it after {spent:.4f}", file=sys.stderr)
    return report, faults


def on_ray(folder, options, dice):
    """Sweep on a cluster of two nodes, interrupted, carried on, and one of the nodes cut off in the middle of a training."""
    from ray_case import Nodes, processes_of
    from sweep_judge import sweep_faults

    from gpu_offload.orchestrator.run.journal import Journal

    project(folder, options, store="file:store")
    store, trainings, environment = (
        open_store(f"file:{folder / 'store'}"),
        options.values * options.seeds,
        dict(os.environ),
    )
    journal, cluster = Journal(store), Nodes(2)
    command = ("sweep", "--on", "ray", "--parallel", "2", "--set", f"ray.address={cluster.address}", "--json")

    def both_train():
        last = [(journal.attempts(run) or [None])[-1] for run in journal.open_ids(write=False)]
        at_work = [one for one in last if one and one.end is None and one.heartbeat]
        return len(at_work) == 2 and all(
            0 < one.heartbeat.epochs_completed < options.epochs for one in at_work
        )

    def cut():
        while len(versions(store)) < trainings // 2 or not both_train():
            time.sleep(0.2)
        cluster.cut_one_off()

    os.environ |= cluster.environment
    try:
        began, few = time.monotonic(), dice.randint(1, trainings // 4)
        after, faults = interrupted(
            folder, command, dice.uniform(0, 10), begun=lambda: len(versions(store)) >= few
        )
        threading.Thread(target=cut, daemon=True).start()
        report = finished(folder, command)
        seconds = time.monotonic() - began
        ends = Counter(a.end.reason for run in journal.run_ids() for a in journal.attempts(run) if a.end)
        faults += [] if ends["reclaimed"] == 1 else [f"the attempts ended so: {ends}"]
        left = [line for line in processes_of(cluster) if "remote_job" in line]
        faults += [f"left: {left}"] if left else []
        faults += sweep_faults(store, report, trainings=trainings, epochs=options.epochs, lost=1)
        row("Ray, 2 nodes", report, trainings, after, ends["reclaimed"], len(left), seconds)
    finally:
        os.environ.clear()
        os.environ.update(environment)
        cluster.end()
        shutil.rmtree(cluster.folder)
    return report, faults


def interrupted(folder, command, seconds, *, begun=lambda: True):
    """Start a command and interrupt it so many seconds after `begun`; return when, and what was wrong with its end."""
    started = time.monotonic()
    process = subprocess.Popen(
        [*OFFLOAD, *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not begun() and process.poll() is None:
        time.sleep(0.2)
    seconds += time.monotonic() - started
    try:
        _, said = process.communicate(timeout=max(0.0, seconds - (time.monotonic() - started)))
        return seconds, [f"it ended by itself ({process.returncode}) before {seconds:.0f} s: {said[-500:]}"]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=200)
    return seconds, [] if process.returncode == 75 else [
        f"interrupted, it ended with {process.returncode}: {said[-500:]}"
    ]


def finished(folder, command, *, codes=(0,)):
    """Run a command to its end; return its JSON document."""
    done = subprocess.run([*OFFLOAD, *command], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in codes:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def row(where, report, trainings, after, reclaimed, left, seconds):
    """Print a line of the table."""
    values = {trial["number"]: trial for trial in report["trials"]}
    ranking = ", ".join(
        f"{values[n]['values']['lr0']:g} ({values[n]['score']['mean']:.3f})" for n in report["ranking"]
    )
    for trial in report["trials"]:
        if trial["state"] != "complete":
            print(f"trial {trial['number']}: {trial['state']}: {trial['message']}", file=sys.stderr)
    print(
        f"| {where} | {trainings} | {after:.0f} s | {reclaimed} | {left} | {seconds:.0f} s "
        f"| ${report['cost_usd']:.4f} | {ranking} |",
        flush=True,
    )


PLACES = {"cpu": on_cpu, "ec2": on_ec2, "ray": on_ray}

if __name__ == "__main__":
    raise SystemExit(main())

"""A training that begins on a runner whose role may not rent: a later job goes on with it on an instance."""

import io
from dataclasses import replace

import pytest
from clone_case import own_training

from gpu_offload.dataset.synthetic import generate
from gpu_offload.infra.aws.errors import NoCredentialsError
from gpu_offload.infra.store.factory import open_store
from gpu_offload.orchestrator.lifecycle import train
from gpu_offload.orchestrator.lifecycle.opening import Opening
from gpu_offload.orchestrator.lifecycle.train import Training
from gpu_offload.orchestrator.offers.table import TABLE
from gpu_offload.orchestrator.output.console import Console
from gpu_offload.orchestrator.plan.planner import Planning
from gpu_offload.orchestrator.run.journal import Journal
from gpu_offload.orchestrator.run.record import AttemptEnd, AttemptRecord
from gpu_offload.orchestrator.settings.load import load_settings
from gpu_offload.orchestrator.workspace import Workspace

pytestmark = pytest.mark.process  # git


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("GPU_OFFLOAD_SIMULATOR", "1")  # with an account, which is not asked
    generate(tmp_path / "shapes", images=12, size=64)
    (tmp_path / "mine.py").write_text("def main(context):\n    ...\n")
    text = own_training(10, "image-size = 64\n", '[limits]\non-overrun = "escalate"\n')
    (tmp_path / "offload.toml").write_text(text)
    return tmp_path


def planned(project, on, *, launched_later=True, offers=None, **settings):
    overrides = [f"{name.replace('__', '.').replace('_', '-')}={value}" for name, value in settings.items()]
    loaded = load_settings(project, overrides=overrides, environment={})
    planning = Planning(
        loaded,
        open_store(f"file:{project / 'store'}"),
        Workspace.of(project),
        Console(io.StringIO()),
        lambda: offers,
        launched_later=launched_later,
    )
    return planning.plan(on=on, calibrate=False)


def training(project, plan, **changes):
    store = open_store(f"file:{project / 'store'}")
    return Training(plan, store, Workspace.of(project), Console(io.StringIO()), **changes)


def opened(project, plan):
    store = open_store(f"file:{project / 'store'}")
    journal = Journal(store)
    run, _ = Opening(plan, store, Console(io.StringIO()), lambda: 1e9).open_run(journal)
    return journal, run


def left_cpu(project, plan):
    """A run whose own steps showed on the runner that it has to move; time passes with the store's clock."""
    work = training(project, plan)
    journal = Journal(work.store)
    run, _ = Opening(plan, work.store, work.console, work.clock).open_run(journal)
    now = run.created_at
    record = AttemptRecord(
        number=1,
        offer=run.candidates[0].offer,
        created_at=now,
        expires_at=run.deadline_at,
        driver="gone:1:aa",
    )
    journal.open_attempt(run.id, record)
    end = AttemptEnd(number=1, reason="overrun", at=now + 5, message="too slow; it moves to g4dn.xlarge")
    journal.close_attempt(run.id, end)
    return journal, run


def test_a_plan_says_whether_the_training_can_move(project):
    assert planned(project, "auto").can_move
    assert not planned(project, "auto", limits__on_overrun="stop").can_move
    assert not planned(project, "auto", launched_later=False).can_move
    assert not planned(project, "cpu", launched_later=False).can_move


@pytest.mark.parametrize("zone", ["us-east-1a", None])
def test_a_training_here_can_move_only_where_ec2_itself_gave_the_offers(project, zone):
    """AWS's price pages say nothing about an account; their offers have no zone."""
    offers = [replace(offer, zone=zone) for offer in TABLE]
    assert planned(project, "auto", launched_later=False, offers=offers).can_move == bool(zone)


def test_what_carries_out_such_a_plan_is_not_forced_to_stay(project):
    plan = planned(project, "cpu")
    assert plan.can_move
    assert plan.on == "auto"
    assert not plan.report.decision.reversible  # it escalates, once that is certain
    toss_up = planned(project, "cpu", limits__on_overrun="stop")
    assert toss_up.can_move
    assert toss_up.report.decision.reversible


def test_this_driver_leaves_a_run_that_moves_and_every_later_one_does_too(project):
    """Where the job that rents is not let in, the next push finds the same checkpoint."""
    plan = planned(project, "cpu")
    journal, run = left_cpu(project, plan)
    for _ in range(2):
        work = training(project, plan, launched_later=True)
        done = work.run()
        assert (done.status, done.run, done.where) == ("moves", run.id, "cpu")
        assert work.moves == "too slow; it moves to g4dn.xlarge"
        assert len(journal.attempts(run.id)) == 1
        assert journal.outcome(run.id) is None


def test_this_driver_does_not_judge_a_run_whose_instance_it_may_not_see(project):
    plan = planned(project, "cpu")
    journal, run = left_cpu(project, plan)
    offer = next(c.offer for c in run.candidates if c.offer.where == "ec2")
    record = AttemptRecord(
        number=2, offer=offer, created_at=1.0, expires_at=run.deadline_at, driver="gone:1:bb"
    )
    journal.open_attempt(run.id, record)
    work = training(project, plan, launched_later=True)
    assert work.run().status == "moves"
    assert journal.attempts(run.id)[1].end is None


@pytest.mark.parametrize("on", ["cpu", "ec2"])
def test_an_open_run_goes_on_only_where_it_is_asked_for(project, monkeypatch, on):
    """The role of a job that rents may launch, and a training on its runner could take it; that of another may not."""
    seen = []

    def controller_of(settings, store, run, *others, **more):
        seen.append({candidate.offer.where for candidate in run.candidates})
        raise KeyboardInterrupt

    _, run = opened(project, planned(project, "cpu"))
    assert {candidate.offer.where for candidate in run.candidates} == {"cpu", "ec2"}
    monkeypatch.setattr(train, "controller_of", controller_of)
    with pytest.raises(KeyboardInterrupt):
        training(project, planned(project, on, launched_later=False)).run()
    assert seen == [{on}]


def test_a_published_training_is_done_although_a_run_of_it_can_be_closed_only_with_access_to_ec2(
    project, monkeypatch
):
    journal, run = opened(project, planned(project, "cpu"))

    def controller_of(*_, **__):
        raise NoCredentialsError("no credentials")

    monkeypatch.setattr(train, "controller_of", controller_of)
    work = training(project, planned(project, "cpu"))
    work._close_runs()
    assert "offload tend" in work.console.stream.getvalue()
    assert journal.outcome(run.id) is None


def test_a_run_that_stays_on_its_cpu_is_ended_where_an_instance_is_asked_for(project):
    journal, run = opened(project, planned(project, "cpu", launched_later=False))
    assert opened(project, planned(project, "cpu", launched_later=False))[1].id == run.id
    assert journal.stop_requested(run.id) is None
    opened(project, planned(project, "ec2", launched_later=False))
    assert "instance" in journal.stop_requested(run.id).reason

"""What one training takes and costs on each offer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from gpu_offload.orchestrator.cost.traffic import CHECKPOINT_BYTES, MODEL_BYTES, StorePlace, Traffic
from gpu_offload.orchestrator.estimate.architecture import facts
from gpu_offload.orchestrator.estimate.comparison import comparison
from gpu_offload.orchestrator.estimate.correction import GUESS, Estimate, correct
from gpu_offload.orchestrator.estimate.cpu import estimate_cpu, estimate_cpu_prior
from gpu_offload.orchestrator.estimate.gpu import SETUP_S, estimate_gpu_prior
from gpu_offload.orchestrator.estimate.gpu_memory import main_memory_fault, memory_fault
from gpu_offload.orchestrator.estimate.history import family_of, ultralytics_minor
from gpu_offload.orchestrator.estimate.installation import NOTHING, PRIORS_S, Part, installation
from gpu_offload.orchestrator.estimate.interval import Interval
from gpu_offload.orchestrator.estimate.posterior import HistoryKey, Ratio, matching, shared_mean
from gpu_offload.orchestrator.estimate.processor import this_processor
from gpu_offload.orchestrator.estimate.workload import Workload
from gpu_offload.orchestrator.offers.offer import Gpu, Offer, cpu_offer, gpu_named
from gpu_offload.orchestrator.plan.decision import judge
from gpu_offload.orchestrator.plan.option import Limits, Obstacle, Option
from gpu_offload.orchestrator.settings.load import Settings
from gpu_offload.remote_job.machine import cores, gpu, has_device, has_gpu, memory
from gpu_offload.remote_job.result import Calibration

GIB = 2**30

NO_BF16 = 'does not compute in bfloat16, which training.hyperparameters.amp = "bf16" needs'

OWN_CODE = (
    "a guess, as if Ultralytics trained: your own code is measured only while it trains. Its first epoch replaces the "
    "guess, and its first training that of later ones"
)


@dataclass(frozen=True)
class Appraisal:
    """Estimates a training on this CPU and on instances, corrected by what earlier trainings took (`past`)."""

    settings: Settings
    work: Workload
    past: tuple[Ratio, ...]
    store_place: StorePlace
    share: float = 1.0
    """Of this machine's cores, what other programs left while the training was planned."""
    installs: tuple[Part, ...] = ()
    """What a training on this CPU has still to install, or its job has before."""
    compared: int = 0
    """Held-out images on which the new model is compared with the one in use."""
    has_requirements: bool = False
    """Whether an instance or a node has to install what the user's code needs."""

    @cached_property
    def traffic(self) -> Traffic:
        """What passes to and from the store; of a training of the user's own only the dataset is known."""
        parameters = 0 if self.settings.training.entrypoint else self.work.parameters
        return Traffic(
            store=self.store_place,
            inputs=self.work.dataset_bytes,
            epoch=parameters * CHECKPOINT_BYTES,
            result=parameters * MODEL_BYTES,
        )

    def sized_by(self, measured: Calibration | None) -> "Appraisal":
        """Return it with the measured size of a model of the user's; the priors of standard ones rest on the table's."""
        if measured is None or facts(self.work.model) is not None:
            return self
        # A workload states operations at 640 pixels; they grow with the area of an image.
        gflops = max(measured.gflops, 1e-3) * (640 / self.work.image_size) ** 2
        work = replace(self.work, gflops_640=gflops, parameters=measured.parameters, is_assumed=False)
        return replace(self, work=work)

    def on_cpu(self, measured: Calibration | None) -> Estimate:
        """Estimate the training on this CPU, by a measurement where there is one."""
        if measured is None and self.gpu is not None:
            estimate = estimate_gpu_prior(self.work, self.gpu, cores(), setup=None)
        elif measured is None:
            estimate = estimate_cpu_prior(self.work, cores(), processor=this_processor(), share=self.share)
        else:
            estimate = estimate_cpu(self.work, measured)
        return self._installing(self._corrected(estimate, self.machine(measured)), self.installs)

    def _installing(self, estimate: Estimate, parts: tuple[Part, ...]) -> Estimate:
        found = [installation(part, self.past) for part in parts]
        return estimate.with_installation(
            sum((interval for interval, _ in found), NOTHING), [note for _, note in found]
        )

    @cached_property
    def gpu(self) -> Gpu | None:
        """The GPU of this machine that the training would use, None without one."""
        training = self.settings.training
        found = None if training.entrypoint else gpu(training.device)
        return gpu_named(*found) if found else None

    def machine(self, measured: Calibration | None) -> str:
        """Return this machine's name in the history: estimates with and without a measurement err differently."""
        computes = "cpu" if self.gpu is None else self.gpu.name
        return f"{computes}-{cores()}" + ("" if measured else "-prior")

    def options(
        self, cpu: Estimate, limits: Limits, offers: Sequence[Offer], blocked: Sequence[Obstacle]
    ) -> tuple[Option, ...]:
        """Return this CPU as an option, then the instances that the settings allow; `blocked` rules those out."""
        device = self.settings.training.device
        after = self._comparison(cpu)
        offer = cpu_offer(cores(), round(memory() / GIB, 1))
        here = judge(offer, cpu.interval, limits, comparison=after).with_estimate(cpu)
        if not has_device(device):
            here = here.ruled_out([f"has no training.device {device}"])
        elif self._wants_bf16 and not (self.gpu and self.gpu.bf16):
            here = here.ruled_out([NO_BF16])
        elif self.gpu is None and (fault := main_memory_fault(self.work, memory() / GIB)) is not None:
            here = here.ruled_out([fault])
        settings, types = self.settings.ec2, frozenset(self.settings.ec2.types)
        rented = []
        for offer in offers:
            if offer.instance_type not in types or offer.region not in settings.regions:
                continue
            if offer.gpu is None or settings.gpus not in {"auto", offer.gpu.count}:
                continue
            if settings.market not in {offer.market, "spot-then-on-demand"}:
                continue
            estimate = self._on_gpu(offer, offer.gpu)
            traffic_usd = self.traffic.usd(offer.region, self.work.epochs)
            option = judge(
                offer,
                estimate.interval,
                limits,
                volume_gib=settings.volume_gib,
                traffic_usd=traffic_usd,
                comparison=after,
            ).with_estimate(estimate)
            reasons = [*(fault.reason for fault in blocked), *self._gpu_faults(offer.gpu)]
            rented.append(option.ruled_out(reasons) if reasons else option)
        return (here, *rented)

    def _comparison(self, cpu: Estimate) -> Interval:
        """Return what follows the publication, on the machine of the command."""
        if not self.compared:
            return NOTHING
        return comparison(self.work, cpu, self.compared, slowness=this_processor().slowness)

    def _on_gpu(self, offer: Offer, gpu: Gpu) -> Estimate:
        setup = SETUP_S + (PRIORS_S["requirements"] if self.has_requirements else 0.0)
        prior = estimate_gpu_prior(self.work, gpu, offer.vcpus, setup=setup)
        return self._corrected(prior, offer.machine)

    def _gpu_faults(self, gpu: Gpu) -> Iterator[str]:
        """Yield why the training cannot run on the GPUs of an instance."""
        device = self.settings.training.device
        if (fault := memory_fault(self.work, gpu)) is not None:
            yield fault
        # Ultralytics divides a batch evenly among the GPUs.
        if self.work.batch % gpu.count:
            yield f"cannot divide training.batch = {self.work.batch} evenly among its {gpu.count} GPUs"
        if gpu.count > 1 and device not in {"auto", "cuda"}:
            yield f"would leave all but one of its GPUs idle with training.device = {device}"
        if self._wants_bf16 and not gpu.bf16:
            yield NO_BF16
        if not has_gpu(gpu.count, device):
            yield f"has no training.device {device}"

    @property
    def _wants_bf16(self) -> bool:
        training = self.settings.training
        return training.entrypoint is None and str(training.hyperparameters.get("amp")).lower() == "bf16"

    def on_ray(self, offer: Offer, cpu: Estimate, limits: Limits) -> Option:
        """Estimate the training on a Ray cluster, whose processors were not measured; `cpu` is that on this CPU."""
        if offer.gpu is not None:
            estimate = self._on_gpu(offer, offer.gpu)
        else:
            parts: tuple[Part, ...] = ("requirements",) if self.has_requirements else ()
            prior = estimate_cpu_prior(self.work, offer.vcpus)
            estimate = self._installing(self._corrected(prior, offer.machine), parts)
        after = self._comparison(cpu)
        return judge(offer, estimate.interval, limits, comparison=after).with_estimate(estimate)

    def key(self, machine: str) -> HistoryKey:
        """Return what earlier trainings are matched by on a machine: a CPU or an instance type."""
        training = self.settings.training
        family = training.entrypoint or family_of(training.model)
        return HistoryKey(machine, ultralytics_minor(), self.settings.dataset.path, family)

    def _corrected(self, estimate: Estimate, machine: str) -> Estimate:
        key = self.key(machine)
        if self.settings.training.entrypoint:
            known = matching(self.past, key)
            return correct(
                replace(estimate, kind="own", basis=GUESS, notes=() if known else (OWN_CODE,)), known
            )
        assumed = self.work.is_assumed and estimate.kind != "cpu"
        return correct(
            estimate,
            matching(self.past, key),
            "own" if assumed else None,
            prior=shared_mean(self.past, key),
        )

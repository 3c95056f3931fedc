"""`python -m gpu_offload.orchestrator.cli` is `offload`."""

from gpu_offload.orchestrator.cli import main

main()

"""`python -m orchestrator.cli` is `offload`."""

from orchestrator.cli import main

main()

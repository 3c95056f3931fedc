"""Texts of the workflow files that `offload init` writes."""

TRAIN = """
<<mark>>; running it again updates it. Trains where it is cheapest what a push changed.
name: train

on:
  push:
    branches: [<<branch>>]
  workflow_dispatch:

permissions: {}

jobs:
  train:
    permissions:
      contents: read
      id-token: write # the roles of `offload bootstrap`; none is needed where the store is a folder
    uses: <<train>>
    with:
      directory: <<directory>>
      publisher-role: ${{ vars.OFFLOAD_PUBLISHER_ROLE }}
      launcher-role: ${{ vars.OFFLOAD_LAUNCHER_ROLE }}
      janitor-role: ${{ vars.OFFLOAD_JANITOR_ROLE }}
<<keep>>"""

KEEP = """
  keep: # the store is a folder, which goes with the runner: the models stay in this repository's releases
    needs: train
    if: always() && (needs.train.outputs.artifact != '' || needs.train.result != 'success')
    permissions:
      contents: write # the release; this job runs no training
    uses: <<uses>>
"""

PLAN = """
<<mark>>; running it again updates it. Says on a pull request what merging it would train, and where.
name: plan

on:
  pull_request:

permissions: {}

jobs:
  plan:
    permissions:
      contents: read # and nothing else: a stranger's pull request gets no credentials
    uses: <<plan>>
    with:
      directory: <<directory>>
"""

OFFLOAD = """
<<mark>>; running it again updates it. Trains on a rented GPU because you say so.
name: offload

on:
  workflow_dispatch:
    inputs:
      instance-type:
        description: Instance type
        type: choice
        options: [auto, g4dn.xlarge, g5.xlarge, g6.xlarge, g6e.xlarge]
        default: auto
      market:
        description: Market
        type: choice
        options: [auto, spot, on-demand, spot-then-on-demand]
        default: auto
      max-cost-usd:
        description: What the run may cost in US dollars; empty as configured
        type: string
        default: ""
      deadline:
        description: From its start to its end, such as 3h; empty as configured
        type: string
        default: ""
      detach:
        description: Leave it once the instance trains by itself; tend collects it
        type: boolean
        default: false
      reason:
        description: Why
        type: string
        default: by hand

permissions: {}

jobs:
  offload:
    permissions:
      contents: read
      id-token: write # the launcher's role, behind the environment, and the janitor's
    uses: <<train>>
    with:
      "on": ec2
      directory: <<directory>>
      instance-type: ${{ inputs.instance-type }}
      market: ${{ inputs.market }}
      max-cost-usd: ${{ inputs.max-cost-usd }}
      deadline: ${{ inputs.deadline }}
      detach: ${{ inputs.detach }}
      reason: ${{ inputs.reason }}
      launcher-role: ${{ vars.OFFLOAD_LAUNCHER_ROLE }}
      janitor-role: ${{ vars.OFFLOAD_JANITOR_ROLE }}
"""

TEND = """
<<mark>>; running it again updates it. Ends whatever should not run any more.
name: tend

on:
  schedule:
    - cron: "17 * * * *"
  workflow_dispatch:

permissions: {}

jobs:
  tend:
    if: vars.OFFLOAD_JANITOR_ROLE != ''
    permissions:
      contents: read
      id-token: write # the janitor's role, which may terminate what bears our tag and nothing else
    uses: <<tend>>
    with:
      directory: <<directory>>
      janitor-role: ${{ vars.OFFLOAD_JANITOR_ROLE }}
"""

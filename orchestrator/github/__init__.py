"""The GitHub Action: inputs, events, summaries, workflow files, the release store."""

"""Settings from offload.toml, overrides and defaults."""

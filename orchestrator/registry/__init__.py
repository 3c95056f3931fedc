"""Published models: manifests, aliases, downloads."""

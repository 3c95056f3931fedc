"""Finds and removes orphans: instances, groups and schedules that belong to no open run."""

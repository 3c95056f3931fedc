"""Text for people: console, units, Markdown."""

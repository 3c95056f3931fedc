"""Takes the time of a training's own steps and epochs."""

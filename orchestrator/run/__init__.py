"""The run: journal, observation, next step, controller."""

"""The drill: injects faults into real runs and checks that nothing leaks or is lost."""

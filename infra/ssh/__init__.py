"""SSH to an instance: pinned host key, sockets with time-outs, run, put and get."""

"""Where jobs run: in worker processes, or in the process that asks."""

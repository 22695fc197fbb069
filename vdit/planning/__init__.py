"""What a run costs on a TPU topology, found by compiling its train step for it."""

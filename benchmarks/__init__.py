"""Side by side with TRL: the same model, data, batch and precision on both sides. `python -m benchmarks.run`."""

"""The trainer: loop, objective, optimizer, evaluation, checkpoint."""

"""The one trainer: loop, objective, optimizer, evaluation, checkpoint."""

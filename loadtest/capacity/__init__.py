"""Augur against the plain server of `loadtest.baseline`, on one machine in one go: the project's promise, measured."""

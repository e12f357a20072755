"""An open-loop load: requests leave when they are due, whatever became of the ones before.

`schedule` says when, `bodies` says what, `client` and `worker` send, `samples` counts, `run` measures a server once,
`sweep` looks for the greatest rate within a bound, `compare` measures two in turn, `table` and `pages` report.
"""

"""Load on a server, over HTTP alone: what real users were shown, asked for again.

`python -m loadtest` is the whole run; `locustfile.py` is for `locust` and its own options. `traffic.py` makes the
requests and judges the answers, and knows nothing of who sends them.
"""

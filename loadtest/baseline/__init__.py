"""What a good engineer writes in a day, to compare Augur with: FastAPI, pydantic, uvicorn, DIEN in eager PyTorch.

`python -m loadtest.baseline` serves the same artifact under the same `/v1/score`, the plain way: the user's history is
repeated for every candidate, one request is one forward of the network; `--fused` has the recurrences by this project's
kernels, and all else as it was. `python -m loadtest.baseline.echo` is the least
an ASGI server can do with a body. These are servers, unlike the rest of `loadtest`: they may use `model`, nothing else
does, and nothing imports them.
"""

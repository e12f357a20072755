"""`python -m kernels.bench`: interest evolution against what else one could run, checked first and then timed.

| module | what it is |
|---|---|
| `case.py` | inputs of stated sizes, and what is due of a contender, in float64 |
| `contender.py` | something to time: how it is made ready, what is due of it, how close it must come |
| `torch_loops.py`, `peers.py`, `ours.py`, `gpu.py`, `heads.py` | the contenders |
| `rounds.py` | checking, then timing in rounds in which all take their turn |
| `series.py` | which cases are run |
| `targets.py` | the ratios that are judged |
| `report.py`, `plot.py` | tables, the JSON line, the picture |
"""

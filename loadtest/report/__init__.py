"""One report of every measurement: each command a process of its own, its results in a folder of its own.

| module | what it is |
|---|---|
| `parts.py` | which commands there are, and what each leaves behind |
| `running.py` | runs one, and keeps what became of it |
| `tables.py` | a part's results, which are JSON or CSV, as tables |
| `document.py` | the report, as Markdown and as a page |
"""

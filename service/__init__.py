"""The server: HTTP in front of a scorer, with a store of what users did.

The life of a score request:

1. `app` puts every request through the door: an id, one wire form for errors, no exception past it.
2. `routes` reads it: `body` bounds and decodes the bytes, `wire` holds the shapes, the model's own limits come last.
3. `batcher` admits it (queue bounded in candidates), fetches the histories of all who wait in one call to the store,
   hands what waits to the scorer whenever the scorer is free, and splits the scores again.
4. `routes` writes the answer; whatever went wrong on the way is one of `errors`.
"""

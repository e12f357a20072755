"""`python -m service`: one process, configured by `AUGUR_*` variables alone."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from service.logs import configure
from service.settings import ConfigError, Settings, describe


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Serves until told to stop. Returns 0, or 2 when the configuration cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serves click probabilities over HTTP.",
        epilog="settings, all from the environment:\n\n" + describe(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.parse_args(arguments)
    try:
        settings = Settings.from_environment(environment)
        configure(settings)
        serve(settings)
    except ConfigError as error:
        print(f"augur: {error}", file=sys.stderr)
        return 2
    return 0


def serve(settings: Settings) -> None:
    """Builds the parts and serves.

    Raises:
        ConfigError: a setting, the artifact or the data set cannot be used; the message says which and why.
    """
    # Here and not above: --help and a wrong setting need not wait for the heavy imports.
    from service.launch import launch
    from service.server import bind

    with bind(settings) as listener:
        launch(settings, listener)


if __name__ == "__main__":
    sys.exit(main())

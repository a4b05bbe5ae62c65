"""The start of `denoise-se` and of `python -m denoise_se.app`."""

from denoise_se.forgiving import open_streams
from denoise_se.stop import ending_at_signals


def main() -> None:
    """Run the command line, which takes a moment to import: a signal then is no traceback."""
    open_streams()
    with ending_at_signals():
        from denoise_se.app.cli import main as run

        run()


if __name__ == "__main__":
    main()

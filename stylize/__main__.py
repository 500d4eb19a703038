"""``python -m stylize`` is the command ``stylize``, which starts here."""

# Nothing is imported up here: until main() runs, Ctrl-C would show a traceback.


def main() -> None:
    """Run the command line, whose imports take a while: Ctrl-C meanwhile ends the program as it does later."""
    try:
        import signal

        handler = signal.getsignal(signal.SIGINT)  # not always Python's: shells let background jobs ignore it
        if handler is signal.default_int_handler:
            signal.signal(signal.SIGINT, lambda number, frame: _interrupted())
        from stylize.cli.main import main as run

        signal.signal(signal.SIGINT, handler)
        run()
    except KeyboardInterrupt:
        _interrupted()


def _interrupted() -> None:
    """End at once: nothing has been begun."""
    import os

    try:
        os.write(2, b"stylize: interrupted\n")
    finally:
        os._exit(130)


if __name__ == "__main__":
    main()

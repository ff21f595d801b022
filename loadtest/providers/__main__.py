"""``python -m loadtest.providers``."""

from loadtest.providers.command import providers_command

if __name__ == "__main__":
    providers_command(prog_name="python -m loadtest.providers")

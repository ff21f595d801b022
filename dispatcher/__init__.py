"""From event to delivered alert: intake, admission, ledger, lanes, network, recorder."""

__version__ = "0.1.0"

"""Whose certificates are believed, by every protocol alike."""

from __future__ import annotations

import os

import certifi


def authorities(ca_file: str | None) -> str:
    """The file of certificate authorities: the one that is configured, else the environment's, else certifi's."""
    return ca_file or os.environ.get("SSL_CERT_FILE") or certifi.where()

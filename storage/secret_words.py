"""What looks like a secret in a text, and the text without it.

Credentials come from the environment and are in no setting; but people type addresses with a password in
them, and lists of files hold presigned addresses. They are cut where a text becomes an error, a reject's
detail, a log line or a line for people. The rest of the text stays as it is.

It does not know: secrets that look like any other word.
"""

from __future__ import annotations

import re

BLANK = "***"
_NAMES = (
    r"[a-z0-9_-]*(?:secret|passw(?:or)?d|passphrase|auth[_-]?token|session[_-]?token|security[_-]?token|"
    r"access[_-]?token|access[_-]?key|api[_-]?key|private[_-]?key|account[_-]?key)[a-z0-9_-]*"
)
_SECRETS = re.compile(
    r"(?P<before>"
    r"://(?:[^/@\s:'\"]*:)?(?=[^/\s'\"]*@)"  # user:password@host, token@host
    r"|[?&;](?:x-amz-(?:signature|credential|security-token)|x-goog-(?:signature|credential)"
    r"|signature|sig|awsaccesskeyid|googleaccessid|token|key|code|auth)="  # of presigned addresses
    rf"|\b{_NAMES}['\"]?\s*[=:]\s*['\"]?"  # a name and its value: settings, JSON, TOML
    r"|\bauthorization['\"]?\s*[=:]\s*['\"]?(?:bearer|basic|token)?\s*|\b(?:bearer|basic)\s+(?=[\w.+/=-]{16})"
    r")(?P<value>(?<=://)[^/\s'\"]+(?=@)|(?<=:)[^/\s'\"]+(?=@)|(?:(?!:(?:\s|$))[^\s,;&'\"<>])+)",
    re.I,
)
_KEYS = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\b(?:ghp_|hf_|sk-)[A-Za-z0-9_-]{20,}")


def blank_secrets(text: str) -> str:
    """`text` without passwords in addresses, signatures of presigned ones, and values of what is named a
    secret, password, token or key."""
    return _KEYS.sub(BLANK, _SECRETS.sub(lambda found: f"{found['before']}{BLANK}", text))

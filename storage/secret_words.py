"""What looks like a secret in a text, and the text without it.

Credentials come from the environment and are in no setting; but people type addresses with a password in
them, and lists of files hold presigned addresses. They are cut where a text becomes an error, a reject's
detail, a log line or a line for people. The rest of the text stays as it is.

    an address's user         s3://KEY:SECRET@bucket, https://TOKEN@host, bob:SECRET@proxy:3128
    an address's query        ?X-Amz-Signature=SECRET, also where the address lies encoded in another's query
    a name and its value      aws_secret_access_key = SECRET, {"client_secret": "A SECRET"}, --password SECRET
    a header                  Authorization: Basic SECRET, Cookie: session=SECRET
    a shape                   AKIA..., ghp_..., hf_..., a JSON web token, a private key's block

It does not know: secrets that look like any other word.
"""

from __future__ import annotations

import re

BLANK = "***"

_LETTER = r"(?:(?![:.)]+(?:\s|$))[^\s,;&'\"<>\\])"
_VALUE = f"{_LETTER}+"
"""A word; what ends it of a sentence's marks is the sentence's."""

_QUOTED = r"(?P<quote>\\?['\"])(?:(?!(?P=quote)).)*"
"""A string from its opening quote, the closing one left out."""

_TOKENS = (
    "access|api|auth|bearer|bot|deploy|git(?:hub|lab)?|hf|hub|id|npm|personal|private|refresh|sas|security"
    "|session|slack"
)
_NAMES = (
    r"[a-z0-9_.-]{0,40}(?:secret|passw(?:or)?d|passwort|passphrase|pwd|"
    rf"(?:{_TOKENS})[_-]?token|"
    r"(?:access|account|api|private|secret)[_-]?key)[a-z0-9_-]{0,40}"
)
_IN_QUERIES = (
    r"(?:x-amz-|x-goog-|x-oss-|q-)?(?:signature|credential|security-token|sign-key)|sig|token|key|code|auth|jwt"
    r"|awsaccesskeyid|googleaccessid|ossaccesskeyid|hdn[a-z]{2}|hmac"
)

_RULES = (
    # //user:SECRET@host, the secret with or without slashes; //TOKEN@host; user:SECRET@host:port
    r"(?P<before>(?<![\w.)\]])//(?:[^/@\s:'\"\[]{0,300}:)?)[^/\s'\"]{1,300}(?=@)",
    r"(?P<before>://[^/@\s:'\"\[]{1,300}:)(?!\d{1,5}[/?#])[^@\s'\"]{0,300}(?=@)",
    r"(?P<before>(?<![\w/.-])[\w.-]+:)[^\s/:@'\"]+(?=@[\w.-]+:\d{2,5}\b)",
    # ?sig=SECRET, and as %3Fsig%3DSECRET
    rf"(?P<before>(?:[?&;#~]|%3f|%26)(?:{_IN_QUERIES})(?:=|%3d))(?:(?!%26){_LETTER})+",
    # name = SECRET, "name": "A SECRET", --name SECRET
    rf"(?P<before>\b{_NAMES}\\?['\"]?\s*[=:]\s*){_QUOTED}",
    rf"(?P<before>\b{_NAMES}\\?['\"]?\s*[=:]\s*){_VALUE}",
    rf"(?P<before>\bcredentials?=){_VALUE}",
    rf"(?P<before>--(?:{_NAMES}|token)\s+(?!-)){_VALUE}",
    # headers
    rf"(?P<before>\bauthorization\\?['\"]?\s*[=:]\s*\\?['\"]?(?:bearer|basic|token)?\s*){_VALUE}",
    r"(?P<before>\b(?:bearer|basic)\s+)[\w.+/=-]{16,}",
    r"(?P<before>\bcookie\\?['\"]?\s*[=:]\s*)[^\s=;]+=(?:(?!:(?:\s|$))[^'\"\r\n])+",
    r"(?P<before>\bhooks\.slack\.com/services/)\S+",
    # shapes
    r"(?P<before>-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|\Z)",
    r"(?P<before>)\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    r"(?P<before>)\b(?:gh[oprsu]_|github_pat_|hf_|npm_|dckr_pat_|sk_live_|sk-|pypi-)[A-Za-z0-9_-]{20,}",
    r"(?P<before>)\b(?:glpat-|xox[abeprs]-|AIza|ya29\.)[A-Za-z0-9_-]{16,}",
    r"(?P<before>)\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",
)
_PATTERNS = tuple(re.compile(rule, re.IGNORECASE | re.DOTALL) for rule in _RULES)

_HINT = re.compile(
    r"[@=]|%3d|secret|passw|passphrase|pwd|token|key|auth|cookie|bearer|basic|slack|eyj|akia|asia"
    r"|gh[oprsu]_|_pat_|hf_|npm_|sk[-_]|pypi-|glpat|xox|aiza|ya29",
    re.IGNORECASE,
)
"""Without any of these no rule finds anything: most of a million rejects."""


def blank_secrets(text: str) -> str:
    """`text` without passwords in addresses, signatures of presigned ones, and values of what is named a
    secret, password, token or key."""
    if _HINT.search(text) is None:
        return text
    for pattern in _PATTERNS:
        text = pattern.sub(_without_value, text)
    return text


def _without_value(found: re.Match[str]) -> str:
    return f"{found['before']}{found.groupdict().get('quote') or ''}{BLANK}"

"""Addresses of what isn't on this machine, `SCHEME://PLACE/NAME`, and the secrets that they must not hold.

Addresses stand in plans, manifests and messages, so one with credentials in it is refused, and what a store says is shown without them.
"""

import os
import re

from bltdata.errors import ConfigError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_SCHEMES_WITH_ACCOUNTS = ("abfs", "abfss", "sftp", "ssh", "hdfs", "webhdfs", "smb")
"""What stands before an `@` in these is a container or a user, and no secret."""

_SECRET_NAMES = re.compile(r"SECRET|TOKEN|PASSW|ACCESS_KEY|ACCOUNT_KEY|CREDENTIAL|SAS", re.IGNORECASE)
_SECRET_FIELD = re.compile(r"(?i)\b((?:x-amz-|x-goog-)[\w-]+|(?:aws)?accesskeyid|signature|sig|key|secret|\w*token|passw\w*)=[^&\s'\"]+")
_USER_PART = re.compile(r"(?<=://)[^/\s@'\"]*@")
_SHORTEST_SECRET = 8


def is_url(text: object) -> bool:
    """Whether a text is the address of something in a store.

    >>> is_url("s3://bucket/shards"), is_url("runs/shards")
    (True, False)
    """
    return isinstance(text, str) and _SCHEME.match(text) is not None


def check_url(text: str) -> None:
    """Refuse an address with credentials in it, without repeating them, and one of several file systems in one.

    Raises:
        ConfigError: it is one of these.
    """
    match = _SCHEME.match(text)
    if match is None:
        return
    scheme = match[1].lower()
    authority = text[match.end() :].partition("/")[0]
    user, at, _ = authority.rpartition("@")
    has_user = bool(at) and (":" in user or scheme not in _SCHEMES_WITH_ACCOUNTS)
    if has_user or re.search(r"\?[^/?=#]+=", text):
        raise ConfigError(
            f"An address that begins with {scheme}:// has a user, password, key or signature in it, which would be kept in plans and "
            "messages; leave it out and set the credentials in the environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if "::" in text:
        raise ConfigError(f"The address {text!r} chains several file systems, which isn't supported; give the address of one.")


def redacted(text: str) -> str:
    """A message of a store with whatever may be a secret taken out.

    >>> redacted("no route to http://me:pass@host/?X-Amz-Signature=af39")
    'no route to http://***@host/?X-Amz-Signature=***'
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAMES.search(name):
            text = text.replace(value, "***")
    return _SECRET_FIELD.sub(r"\1=***", _USER_PART.sub("***@", text))

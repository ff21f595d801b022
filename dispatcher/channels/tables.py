"""The answer tables of all providers, by channel: for ``explain``, and for docs/channels.md."""

from __future__ import annotations

from dispatcher.channels.email.answers import TABLE as EMAIL
from dispatcher.channels.sms.aliyun.answers import TABLE as ALIYUN
from dispatcher.channels.sms.generic import TABLE as GENERIC
from dispatcher.channels.sms.tencent.answers import TABLE as TENCENT
from dispatcher.channels.table import AnswerTable
from dispatcher.channels.webhook.answers import TABLE as WEBHOOK
from dispatcher.channels.wechat.answers import TABLE as WECHAT
from dispatcher.channels.wechat.service import TABLE as SERVICE

TABLES: dict[str, tuple[AnswerTable, ...]] = {
    "wechat": (WECHAT,),
    "wechat_service": (SERVICE,),
    "sms": (GENERIC, ALIYUN, TENCENT),
    "email": (EMAIL,),
    "webhook": (WEBHOOK,),
}
"""Of a channel with several vendors the codes of no two are alike."""

_OURS = frozenset(
    {
        "unreadable",
        "no-msgid",
        "no-id",
        "no-errcode",
        "process-died",
        "resent",
        "no-starttls",
        "no-login",
        "certificate",
    }
)


def is_known(channel: str, code: str) -> bool:
    """Whether a table of the channel has this code, or it is one of ours and stands in none. A channel without a table
    knows every code."""
    tables = TABLES.get(channel)
    if tables is None or code in _OURS or code.startswith(("network-", "http-")):
        return True
    return any(table.knows(code) for table in tables)

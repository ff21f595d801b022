"""What a mail server's replies mean: three digits, the enhanced code (RFC 3463) and where in the dialogue they came.

A row's key is one of, and the first that is there counts:

- ``mail 550``: at that stage (`Stage`) of the dialogue this reply means something else than elsewhere;
- ``5.1.1``: an enhanced code, which says more than the digits in front of it;
- ``5.7.x``: all other enhanced codes of that subject;
- ``550``: the reply alone.
"""

from __future__ import annotations

import re

from dispatcher.channels.base import CONFIGURATION_PAUSE_MS, THROTTLE_PAUSE_MS, classify_failure
from dispatcher.channels.email.session import CERTIFICATE, NO_AUTH, NO_STARTTLS, Stage
from dispatcher.channels.table import NOT_IN_TABLE, AnswerTable, Row
from dispatcher.delivery import Answer, AnswerClass
from dispatcher.network.api import Response

MAILBOX_PAUSE_MS = 60_000
"""Greylisting and busy mailboxes want a minute or more; the retry policy begins with two seconds and doubles."""

_A = AnswerClass


def _ours(note: str) -> Row:
    return Row(AnswerClass.CONFIGURATION, "channel", CONFIGURATION_PAUSE_MS, note)


PLAIN_CODES = frozenset({421, 432, 454, 521, 523, 530, 534, 535, 538, 556})
"""Replies whose digits say more than any enhanced code beside them: 530 5.7.0 is our missing log-in, not a policy."""

TABLE = AnswerTable(
    "email: SMTP",
    "RFC 5321 section 4.2, RFC 3463, RFC 4954 section 6, RFC 7505",
    {
        # the message was taken
        "250": Row(_A.ACCEPTED, note="taken over for delivery"),
        "251": Row(_A.ACCEPTED, note="taken over, will be forwarded"),
        "252": Row(_A.ACCEPTED, note="taken over without a look at the mailbox"),
        # later
        "421": Row(_A.RETRY, "channel", THROTTLE_PAUSE_MS, "service closes the connection"),
        "450": Row(_A.RETRY, "recipient", MAILBOX_PAUSE_MS, "mailbox busy, or greylisted"),
        "451": Row(_A.RETRY, "message", 0, "error in processing"),
        "452": Row(_A.THROTTLE, "message", THROTTLE_PAUSE_MS, "not enough storage, or too many messages"),
        "454": Row(_A.RETRY, "channel", THROTTLE_PAUSE_MS, "TLS or log-in not available for now"),
        "455": Row(_A.RETRY, "message", 0, "parameters cannot be taken for now"),
        "4.2.x": Row(_A.RETRY, "recipient", MAILBOX_PAUSE_MS, "mailbox full, slow or disabled for now"),
        "4.3.x": Row(_A.RETRY, "channel", THROTTLE_PAUSE_MS, "mail system busy"),
        "4.4.x": Row(_A.RETRY, "message", MAILBOX_PAUSE_MS, "route or destination not reachable for now"),
        "4.5.3": Row(_A.THROTTLE, "channel", THROTTLE_PAUSE_MS, "too many recipients or messages"),
        "4.7.x": Row(_A.THROTTLE, "message", MAILBOX_PAUSE_MS, "rate limit or greylisting"),
        # nobody there
        "5.1.1": Row(_A.RECIPIENT_GONE, "recipient", note="no such mailbox"),
        "5.1.2": Row(_A.RECIPIENT_GONE, "recipient", note="no such domain"),
        "5.1.3": Row(_A.RECIPIENT_GONE, "recipient", note="not a mailbox's address"),
        "5.1.6": Row(_A.RECIPIENT_GONE, "recipient", note="mailbox has moved"),
        "5.1.10": Row(_A.RECIPIENT_GONE, "recipient", note="domain takes no mail"),
        "5.2.1": Row(_A.RECIPIENT_GONE, "recipient", note="mailbox disabled"),
        "551": Row(_A.RECIPIENT_GONE, "recipient", note="user not local"),
        "556": Row(_A.RECIPIENT_GONE, "recipient", note="domain takes no mail"),
        # this message is refused
        "5.2.x": Row(_A.PERMANENT, "recipient", note="mailbox full or not allowed"),
        "5.3.x": Row(_A.PERMANENT, "message", note="too large for the mail system"),
        "5.6.x": Row(_A.PERMANENT, "message", note="content cannot be taken"),
        "5.7.x": Row(_A.PERMANENT, "message", note="refused by policy"),
        # 550 alone may be policy as well as a missing mailbox. Believing "gone" would silence the address for a week.
        "550": Row(_A.PERMANENT, "recipient", note="mailbox not available, for an unknown reason"),
        "552": Row(_A.PERMANENT, "message", note="over the storage limit"),
        "553": Row(_A.PERMANENT, "recipient", note="mailbox name not allowed"),
        "554": Row(_A.PERMANENT, "message", note="transaction failed"),
        "555": Row(_A.PERMANENT, "message", note="parameters not recognised"),
        "500": Row(_A.PERMANENT, "message", note="command not recognised"),
        "501": Row(_A.PERMANENT, "message", note="syntax error in parameters"),
        "502": Row(_A.PERMANENT, "message", note="command not implemented"),
        "503": Row(_A.PERMANENT, "message", note="bad sequence of commands"),
        "504": Row(_A.PERMANENT, "message", note="parameter not implemented"),
        # we are refused
        "432": _ours("password must be changed"),
        "521": _ours("host takes no mail"),
        "523": Row(_A.PERMANENT, "message", note="longer than the server's limit"),
        "530": _ours("wants TLS or a log-in"),
        "534": _ours("way of logging in too weak"),
        "535": _ours("user name or password wrong"),
        "538": _ours("log-in needs TLS"),
        "5.1.7": _ours("our sender's address is not one"),
        "5.1.8": _ours("our sender's domain does not exist"),
        **{
            f"{stage} {code}": _ours(note)
            for stage, codes, note in (
                (Stage.OPEN, "500 501 502 503 504 550 554", "server does not talk to this machine"),
                (Stage.AUTH, "500 501 502 504 534 535 538 550 554", "log-in refused"),
                (Stage.MAIL, "501 550 551 553 554", "our sender is refused, and so would be every message"),
            )
            for code in codes.split()
        },
    },
)

UNKNOWN_LATER = Row(_A.RETRY, "message", 0, "4yz that is not in the table: a failure for now, with an alarm")
"""The server says itself that it did not take the message and that it may do so later, so nothing is lost by asking."""

OURS = {NO_STARTTLS: "no-starttls", NO_AUTH: "no-login", CERTIFICATE: "certificate"}
"""Reasons without a reply that a person has to mend: nothing may leave over a line that is not the server's."""

_enhanced = re.compile(rb"\s*([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])").match


def classify(response: Response) -> Answer:
    """What a reply, or its absence, means. Nothing of the reply's text is kept: servers repeat addresses in it."""
    took_ms = round(response.seconds * 1000)
    if response.failure is not None:
        reason = OURS.get(response.code)
        if reason is None:
            return classify_failure(response)
        return Answer(_A.CONFIGURATION, reason, None, CONFIGURATION_PAUSE_MS, "channel", took_ms)
    stage = response.headers[0].decode() if response.headers else ""
    code, row = look_up(stage, response.status, response.body)
    return Answer(row.kind, code, None, row.pause_ms, row.scope, took_ms)


def look_up(stage: str, status: int, text: bytes) -> tuple[str, Row]:
    """The row for a reply and the key it has. Without a row: the reply's own code, and a failure."""
    keys = [f"{stage} {status}"]
    enhanced = _enhanced(text)
    if enhanced is not None and int(enhanced[1]) == status // 100 and status not in PLAIN_CODES:
        kind, subject, detail = (int(part) for part in enhanced.groups())
        keys += [f"{kind}.{subject}.{detail}", f"{kind}.{subject}.x"]
    keys.append(f"{status}")
    for key in keys:
        row = TABLE.rows.get(key)
        # Only the end of the message can be its acceptance.
        if row is not None and (row.kind is not _A.ACCEPTED or stage == Stage.DATA):
            return key, row
    return f"{status}", UNKNOWN_LATER if status // 100 == 4 else NOT_IN_TABLE


def knows(code: str) -> bool:
    """Whether an answer's code stands in the table or is one of ours."""
    return TABLE.knows(code) or code.startswith("network-") or code in OURS.values()

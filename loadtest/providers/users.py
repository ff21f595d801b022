"""The users of the simulated service account: who follows it, who blocks it, who refuses which template."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

MAX_USERS: Final = 1_000_000
"""Users with a will of their own, about 0.2 KiB each; everybody else follows and takes what comes."""

Deed = Literal["follow", "unfollow", "block", "unblock", "refuse", "accept"]


class UserDeed(msgspec.Struct, forbid_unknown_fields=True):
    """What a user does. ``template`` is the one that is refused or accepted, None: every one."""

    openid: Annotated[str, Meta(min_length=1, max_length=64)]
    deed: Deed
    template: str | None = None

    def __repr__(self) -> str:
        return f"<UserDeed {self.deed}>"


class _User(msgspec.Struct):
    follows: bool = True
    blocks: bool = False
    refuses_all: bool = False
    refuses: set[str] = msgspec.field(default_factory=set)

    def __repr__(self) -> str:
        return "<_User ****>"


class Users:
    """Pure. Nobody is in it at the start: all follow."""

    def __init__(self) -> None:
        self._users: dict[str, _User] = {}

    def do(self, deed: UserDeed) -> bool:
        """Let it be so; False when there are too many users to remember one more."""
        user = self._users.get(deed.openid)
        if user is None:
            if len(self._users) >= MAX_USERS:
                return False
            user = self._users[deed.openid] = _User()
        if deed.deed in ("follow", "unfollow"):
            user.follows = deed.deed == "follow"
        elif deed.deed in ("block", "unblock"):
            user.blocks = deed.deed == "block"
        elif deed.template is None:
            user.refuses_all = deed.deed == "refuse"
            user.refuses.clear()
        elif deed.deed == "refuse":
            user.refuses.add(deed.template)
        else:
            user.refuses.discard(deed.template)
        return True

    def refusal(self, openid: str, template: str) -> int:
        """0, or the errcode that a message to this user gets (providers.md section 2.4)."""
        user = self._users.get(openid)
        if user is None:
            return 0
        if not user.follows:
            return 43004
        return 43101 if user.refuses_all or template in user.refuses else 0

    def blocks(self, openid: str) -> bool:
        """Whether the user blocks the account: messages are accepted and not shown (section 3, ``user block``)."""
        user = self._users.get(openid)
        return user is not None and user.blocks

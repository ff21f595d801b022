"""Faults: their text form, and that the same seed commits the same ones."""

import pytest

from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Dice, Faults, parse_faults
from loadtest.providers.settings import ProviderSettings, ReceiptSettings, parse_weights


def test_faults_are_read_from_text() -> None:
    assert parse_faults("") == Faults()
    assert parse_faults(" busy=0.01, reset = 1 ,slow=.5,slow_seconds=30") == Faults(
        busy=0.01, reset=1.0, slow=0.5, slow_seconds=30.0
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bsy=0.1", r"unknown fault 'bsy'; known are busy, throttle, quota"),
        ("busy", r"busy must be a number from 0 to 1, not ''"),
        ("busy=", r"busy must be a number from 0 to 1, not ''"),
        ("busy=often", r"not 'often'"),
        ("busy=1.01", r"from 0 to 1, not '1.01'"),
        ("busy=-0.1", r"not '-0.1'"),
        ("busy=nan", r"not 'nan'"),
        ("slow_seconds=601", r"slow_seconds must be a number from 0 to 600"),
        ("busy=0.1,busy=0.2", r"busy is given twice"),
        ("down_from=5", r"down_to is 0 s and must be after down_from, 5 s"),
        ("down_from=5,down_to=5", r"down_to is 5 s and must be after down_from, 5 s"),
        ("down_to=5,down_sms=0.5", r"down_sms must be 0 or 1, not 0.5"),
        ("down_wechat=0.99", r"down_wechat must be 0 or 1, not 0.99"),
    ],
)
def test_a_text_that_cannot_be_faults_says_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(SettingsTextError, match=says):
        parse_faults(text)


def test_weights_of_statuses_need_at_least_one() -> None:
    assert parse_weights("success=97,user-block=3") == {"success": 97.0, "user-block": 3.0}
    for text in ("", "success=0", "delivered=1", "success=inf"):
        with pytest.raises(SettingsTextError, match=r"known are success|must be a number"):
            parse_weights(text)


def test_a_trait_belongs_to_the_user_and_not_to_the_request() -> None:
    # Given a share of a tenth, when many users are asked about twice, then each answer stands.
    dice = Dice(Faults(), 1)
    users = [f"o{number:027d}" for number in range(4000)]
    gone = {user for user in users if dice.has_trait("unsubscribed", user, 0.1)}
    assert gone == {user for user in reversed(users) if dice.has_trait("unsubscribed", user, 0.1)}
    assert 300 < len(gone) < 500
    # And another trait meets other users, and a higher share keeps those that it had.
    assert gone != {user for user in users if dice.has_trait("refused", user, 0.1)}
    assert gone <= {user for user in users if dice.has_trait("unsubscribed", user, 0.2)}
    assert all(dice.has_trait("refused", user, 1.0) for user in users)


def test_secrets_do_not_print() -> None:
    shown = repr(ProviderSettings(receipts=ReceiptSettings()))
    assert "simulated-secret" not in shown
    assert "simulated-token" not in shown

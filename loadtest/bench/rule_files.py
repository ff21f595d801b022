"""Rule files of different size, whose cost the bench compares. Pure data."""

from __future__ import annotations

from typing import Final

from ratelimit.rules import default_rules_text

BEFORE: Final = """\
version = 1
[[rule]]
id = "sms-from-100"
effect = "min_amount"
channel = "sms"
amounts = { CNY = 10000 }
[[rule]]
id = "swipe-expiry"
effect = "expire_after"
category = "swipe"
hours = 24
"""
"""A minimum and an age, which need no counter: what a decision costs at least."""

TWENTY: Final = (
    BEFORE
    + """\
[[rule]]
id = "alarm"
effect = "priority"
when = { currency = "CNY", amount_from = 2000000 }
[[rule]]
id = "storm"
effect = "storm"
when = { category = "swipe" }
fingerprint = ["merchant", "amount", "currency", "type"]
limit = 10
minutes = 10
sample = 10
[[rule]]
id = "account-day"
effect = "cap"
limit = 500
per = "account"
window = "day"
when = { category = "swipe" }
[[rule]]
id = "statement-month"
effect = "cap"
limit = 1
per = "recipient"
window = "month"
when = { category = "statement" }
[[rule]]
id = "repayment-month"
effect = "cap"
limit = 2
per = "recipient"
window = "month"
when = { category = "repayment" }
[[rule]]
id = "service-week"
effect = "cap"
limit = 2
per = "recipient"
window = "week"
when = { category = "service" }
[[rule]]
id = "service-gap"
effect = "min_gap"
hours = 4
when = { category = "service" }
[[rule]]
id = "broadcast-month"
effect = "cap"
limit = 4
per = "recipient"
window = "month"
when = { category = "broadcast" }
[[rule]]
id = "broadcast-once"
effect = "dedup"
hours = 24
fingerprint = ["category", "merchant"]
when = { category = "broadcast" }
[[rule]]
id = "promotion-consent"
effect = "consent"
category = "promotion"
mode = "opt-in"
[[rule]]
id = "promotion-sms"
effect = "consent"
category = "promotion"
channel = "sms"
mode = "opt-in"
[[rule]]
id = "promotion-week"
effect = "cap"
limit = 2
per = "recipient"
window = "week"
when = { category = "promotion" }
[[rule]]
id = "promotion-gap"
effect = "min_gap"
hours = 20
when = { category = "promotion" }
at_gap = "hold"
[[rule]]
id = "promotion-order"
effect = "route"
when = { category = "promotion" }
channels = ["wechat"]
[[rule]]
id = "promotion-expiry"
effect = "expire_after"
category = "promotion"
hours = 72
[[rule]]
id = "service-expiry"
effect = "expire_after"
category = "service"
hours = 48
[[rule]]
id = "promotion-hours"
effect = "quiet_hours"
from = "21:00"
to = "08:00"
when = { category = "promotion" }
[[rule]]
id = "service-hours"
effect = "quiet_hours"
from = "22:00"
to = "07:00"
when = { category = ["service", "broadcast"] }
"""
)
"""Twenty rules of a bank: five speak of every swipe, the others of what is not a swipe."""

TWENTY_OF_SWIPES: Final = (
    BEFORE
    + """\
[[rule]]
id = "alarm"
effect = "priority"
when = { currency = "CNY", amount_from = 2000000 }
[[rule]]
id = "order"
effect = "route"
when = { category = "swipe" }
channels = ["wechat", "sms"]
[[rule]]
id = "storm"
effect = "storm"
when = { category = "swipe" }
fingerprint = ["merchant", "amount", "currency", "type"]
limit = 10
minutes = 10
sample = 10
[[rule]]
id = "once"
effect = "dedup"
minutes = 2
[[rule]]
id = "small-at-night"
effect = "quiet_hours"
from = "00:00"
to = "00:01"
when = { currency = "CNY", amount_below = 100 }
[[rule]]
id = "account-day"
effect = "cap"
limit = 500
per = "account"
window = "day"
[[rule]]
id = "recipient-month"
effect = "cap"
limit = 5000
per = "recipient"
window = "month"
[[rule]]
id = "merchant-week"
effect = "cap"
limit = 900
per = ["account", "merchant"]
window = "week"
[[rule]]
id = "sms-day"
effect = "cap"
limit = 100
per = "account"
window = "day"
channel = "sms"
[[rule]]
id = "hour"
effect = "cap"
limit = 60
per = "recipient"
rolling_hours = 1
[[rule]]
id = "promotion-consent"
effect = "consent"
category = "promotion"
mode = "opt-in"
[[rule]]
id = "promotion-sms"
effect = "consent"
category = "promotion"
channel = "sms"
mode = "opt-in"
[[rule]]
id = "promotion-week"
effect = "cap"
limit = 2
per = "recipient"
window = "week"
when = { category = "promotion" }
[[rule]]
id = "promotion-gap"
effect = "min_gap"
hours = 20
when = { category = "promotion" }
at_gap = "hold"
[[rule]]
id = "promotion-order"
effect = "route"
when = { category = "promotion" }
channels = ["wechat"]
[[rule]]
id = "promotion-expiry"
effect = "expire_after"
category = "promotion"
hours = 72
[[rule]]
id = "service-expiry"
effect = "expire_after"
category = "service"
hours = 48
[[rule]]
id = "promotion-hours"
effect = "quiet_hours"
from = "21:00"
to = "08:00"
when = { category = "promotion" }
"""
)
"""Twenty rules of which ten speak of every swipe, with six counters and two lists of times: the dearest file."""

FILES: Final = {
    "a minimum and an age": BEFORE,
    "the shipped rules": default_rules_text(),
    "twenty rules": TWENTY,
    "twenty rules, ten of every swipe": TWENTY_OF_SWIPES,
}

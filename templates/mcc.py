"""Merchant category codes (ISO 18245) as a word and an icon: some forty groups that a cardholder thinks in. Pure.

The words stand here and not in ``words.py`` since they change with the table. A Chinese one has at most five
characters, so that WeChat's ``phrase`` can hold it.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

import msgspec

MAX_CACHED_CODES = 2_048
"""Codes whose group is kept: ISO 18245 has about a thousand, and what is none takes a place, too."""


class MccGroup(msgspec.Struct, frozen=True):
    """A group of codes: its words, and one emoji (some of two code points) for places that show emoji."""

    zh: str
    en: str
    icon: str


GROUPS: dict[str, MccGroup] = {
    "farming": MccGroup("农业服务", "Farming and animals", "🌱"),
    "building": MccGroup("装修工程", "Building work", "👷"),
    "airline": MccGroup("航空", "Airline", "✈️"),
    "car-hire": MccGroup("租车", "Car hire", "🚗"),
    "hotel": MccGroup("酒店住宿", "Hotel", "🏨"),
    "transit": MccGroup("公共交通", "Public transport", "🚆"),
    "taxi": MccGroup("打车", "Taxi", "🚕"),
    "freight": MccGroup("快递物流", "Delivery and storage", "📦"),
    "travel": MccGroup("旅游出行", "Travel", "🧳"),
    "roads": MccGroup("停车通行", "Parking and tolls", "🅿️"),
    "telecom": MccGroup("通讯", "Phone and internet", "📱"),
    "transfer": MccGroup("转账汇款", "Money transfer", "💸"),
    "utilities": MccGroup("水电燃气", "Utilities", "💡"),
    "wholesale": MccGroup("批发采购", "Wholesale", "🏭"),
    "home": MccGroup("家居建材", "Home and garden", "🛋️"),
    "department": MccGroup("百货商场", "Department store", "🏬"),
    "groceries": MccGroup("超市食品", "Groceries", "🛒"),
    "vehicles": MccGroup("汽车服务", "Vehicles", "🚙"),
    "fuel": MccGroup("加油充电", "Fuel and charging", "⛽"),
    "clothing": MccGroup("服饰鞋包", "Clothing", "👕"),
    "electronics": MccGroup("数码家电", "Electronics", "💻"),
    "dining": MccGroup("餐饮", "Restaurant", "🍽️"),
    "bar": MccGroup("酒吧", "Bar", "🍸"),
    "fast-food": MccGroup("快餐", "Fast food", "🍔"),
    "digital": MccGroup("数字内容", "Digital goods", "🎮"),
    "pharmacy": MccGroup("药店", "Pharmacy", "💊"),
    "books": MccGroup("图书文具", "Books and stationery", "📚"),
    "sport": MccGroup("运动健身", "Sport", "🏃"),
    "jewellery": MccGroup("珠宝钟表", "Jewellery", "💍"),
    "gifts": MccGroup("礼品玩具", "Gifts and toys", "🎁"),
    "mail-order": MccGroup("网购邮购", "Online and mail order", "🛍️"),
    "shop": MccGroup("零售店", "Shop", "🏪"),
    "pets": MccGroup("宠物", "Pets", "🐾"),
    "cash": MccGroup("取现", "Cash", "🏧"),
    "finance": MccGroup("金融服务", "Financial service", "🏦"),
    "insurance": MccGroup("保险", "Insurance", "🛡️"),
    "property": MccGroup("房产租赁", "Property", "🏠"),
    "personal": MccGroup("生活服务", "Personal service", "🧺"),
    "beauty": MccGroup("美容个护", "Beauty", "💄"),
    "business": MccGroup("商务服务", "Business service", "💼"),
    "repair": MccGroup("维修", "Repair", "🔧"),
    "leisure": MccGroup("休闲娱乐", "Leisure", "🎬"),
    "gambling": MccGroup("彩票博彩", "Lottery and betting", "🎰"),
    "health": MccGroup("医疗健康", "Health", "🏥"),
    "education": MccGroup("教育", "Education", "🎓"),
    "charity": MccGroup("公益社团", "Charity and clubs", "🤝"),
    "government": MccGroup("政务税费", "Government", "🏛️"),
    "post": MccGroup("邮政", "Post", "📮"),
}

_RANGES = """
0700-0799 farming   1500-1999 building  2700-2899 business
3000-3350 airline   3351-3500 car-hire  3501-3999 hotel
4000-4112 transit   4119-4119 health    4121-4121 taxi      4131-4131 transit   4214-4225 freight   4400-4499 travel
4500-4599 airline   4722-4723 travel    4784-4784 roads     4789-4789 transit   4812-4816 telecom   4821-4821 telecom
4829-4829 transfer  4899-4899 telecom   4900-4900 utilities
5000-5192 wholesale 5193-5193 home      5194-5199 wholesale 5200-5271 home      5300-5399 department 5400-5499 groceries
5500-5540 vehicles  5541-5542 fuel      5543-5551 vehicles  5552-5552 fuel      5553-5599 vehicles  5600-5699 clothing
5700-5721 home      5722-5735 electronics 5811-5812 dining  5813-5813 bar       5814-5814 fast-food 5815-5818 digital
5912-5912 pharmacy  5921-5921 groceries 5931-5939 shop      5940-5941 sport     5942-5943 books     5944-5944 jewellery
5945-5945 gifts     5946-5946 electronics 5947-5947 gifts   5948-5948 clothing  5949-5950 home      5960-5960 insurance
5961-5969 mail-order 5970-5973 gifts    5975-5976 health    5977-5977 beauty    5978-5978 electronics 5983-5983 fuel
5992-5992 gifts     5993-5993 shop      5994-5994 books     5995-5995 pets      5996-5999 shop
6010-6011 cash      6012-6051 finance   6211-6211 finance   6300-6399 insurance 6513-6513 property  6529-6540 transfer
7011-7011 hotel     7012-7012 property  7032-7033 hotel     7210-7217 personal  7221-7221 personal  7230-7230 beauty
7251-7296 personal  7297-7298 beauty    7299-7299 personal  7300-7399 business  7512-7519 car-hire  7523-7524 roads
7531-7549 vehicles  7622-7699 repair    7800-7802 gambling  7829-7929 leisure   7932-7933 sport     7941-7941 sport
7991-7991 leisure   7992-7992 sport     7993-7994 digital   7995-7995 gambling  7996-7996 leisure   7997-7997 sport
7998-7999 leisure
8011-8099 health    8111-8111 business  8211-8351 education 8398-8699 charity   8734-8999 business
9211-9399 government 9402-9402 post     9405-9405 government 9406-9406 gambling
"""
"""First and last code of a group. 3000 to 3999 are the airlines, car hirers and hotels with codes of their own."""


def _read_ranges() -> tuple[list[int], list[int], list[MccGroup]]:
    words = iter(_RANGES.split())
    firsts, lasts, groups = [], [], []
    for span, name in zip(words, words, strict=True):
        first, last = span.split("-")
        firsts.append(int(first))
        lasts.append(int(last))
        groups.append(GROUPS[name])
    return firsts, lasts, groups


_FIRSTS, _LASTS, _OF_RANGE = _read_ranges()


@lru_cache(maxsize=MAX_CACHED_CODES)
def mcc_group(code: str) -> MccGroup | None:
    """The group of a code of four digits; None for a code of no group, or what is no code at all."""
    if len(code) != 4 or not code.isascii() or not code.isdigit():
        return None
    number = int(code)
    place = bisect_right(_FIRSTS, number) - 1
    return _OF_RANGE[place] if place >= 0 and number <= _LASTS[place] else None


def mcc_word(code: str | None, language: str) -> str:
    """``5812`` -> ``餐饮`` or ``Restaurant``; empty when there is no word for it."""
    group = mcc_group(code) if code else None
    if group is None:
        return ""
    return group.zh if language == "zh" else group.en


def mcc_icon(code: str | None) -> str:
    """``5812`` -> 🍽️; empty when there is none. WeChat's typed keys show no emoji."""
    group = mcc_group(code) if code else None
    return "" if group is None else group.icon

"""Invented merchants: chains with their branches at home, single shops abroad. No name is a real business's."""

from __future__ import annotations

from typing import Final

import msgspec


class Merchant(msgspec.Struct, frozen=True, gc=False):
    """Where a card is swiped. ``median`` is the median amount in minor units of ``currency``; the spread of the
    amounts is lognormal with ``sigma``. ``mcc`` is the ISO 18245 category."""

    name: str
    mcc: str
    city: str
    country: str
    currency: str
    median: int
    sigma: float


_CHAINS: Final = (
    ("晨光便利", "5499", 1_800, 0.6),
    ("南麓咖啡", "5814", 2_600, 0.4),
    ("云端茶铺", "5814", 2_100, 0.4),
    ("阿婆生煎", "5812", 3_200, 0.5),
    ("东篱面馆", "5812", 2_900, 0.4),
    ("满庭芳火锅", "5812", 26_000, 0.5),
    ("红豆烘焙", "5462", 3_800, 0.5),
    ("百味鲜超市", "5411", 9_800, 0.8),
    ("春申大药房", "5912", 5_600, 0.8),
    ("江南书局", "5942", 6_800, 0.7),
    ("飞驰加油站", "5541", 32_000, 0.35),
    ("一路停车", "7523", 1_500, 0.6),
    ("轻舟出行", "4121", 2_800, 0.6),
    ("蓝鲸影城", "7832", 9_000, 0.4),
    ("木棉服饰", "5651", 32_000, 0.8),
    ("小橘子母婴", "5641", 15_000, 0.8),
    ("老街理发", "7230", 8_800, 0.6),
    ("山野户外", "5941", 42_000, 0.8),
    ("知行健身", "7997", 88_000, 0.6),
    ("安眠酒店", "7011", 46_000, 0.5),
    ("启明数码", "5732", 180_000, 0.9),
    ("金桂珠宝", "5944", 420_000, 0.9),
)
"""Name, category, median in fen, sigma."""

_BRANCHES: Final = {
    "上海": ("南京西路店", "徐家汇店", "陆家嘴店", "五角场店", "张江店"),
    "北京": ("国贸店", "三里屯店", "中关村店", "望京店"),
    "深圳": ("南山店", "福田店", "华强北店"),
    "广州": ("天河店", "北京路店"),
    "成都": ("春熙路店", "高新店"),
    "杭州": ("西湖店", "滨江店"),
    "武汉": ("光谷店",),
    "南京": ("新街口店",),
    "西安": ("钟楼店",),
    "重庆": ("解放碑店",),
}

AT_HOME: Final = tuple(
    Merchant(chain + branch, mcc, city, "CN", "CNY", median, sigma)
    for chain, mcc, median, sigma in _CHAINS
    for city, branches in _BRANCHES.items()
    for branch in branches
)

CASH_MACHINES: Final = tuple(
    Merchant(f"自助取款机 {branch.removesuffix('店')}", "6011", city, "CN", "CNY", 100_000, 0.0)
    for city, branches in _BRANCHES.items()
    for branch in branches
)

ABROAD: Final = (
    Merchant("浅草天ぷら 三松", "5812", "東京", "JP", "JPY", 3_800, 0.5),
    Merchant("Shinjuku Lens & Camera", "5946", "東京", "JP", "JPY", 48_000, 0.8),
    Merchant("鴨川ブックス", "5942", "京都", "JP", "JPY", 2_800, 0.6),
    Merchant("すすきのスープカレー", "5812", "札幌", "JP", "JPY", 1_900, 0.3),
    Merchant("명동 화장품 거리점", "5977", "서울", "KR", "KRW", 45_000, 0.7),
    Merchant("서울역 편의점", "5499", "서울", "KR", "KRW", 8_400, 0.5),
    Merchant("Jeju Tangerine Farm Shop", "5451", "Jeju", "KR", "KRW", 26_000, 0.5),
    Merchant("旺記電器行", "5732", "Hong Kong", "HK", "HKD", 120_000, 0.9),
    Merchant("Star Quay Dim Sum", "5812", "Hong Kong", "HK", "HKD", 28_000, 0.5),
    Merchant("海旁藥房", "5912", "Hong Kong", "HK", "HKD", 32_000, 0.7),
    Merchant("Harbor Street Diner", "5812", "Boston", "US", "USD", 2_800, 0.5),
    Merchant("Bay Bridge Outfitters", "5651", "San Francisco", "US", "USD", 9_500, 0.7),
    Merchant("BROOKLYN PARKING 14", "7523", "New York", "US", "USD", 1_800, 0.4),
    Merchant("Mesa Verde Lodge", "7011", "Durango", "US", "USD", 21_000, 0.4),
    Merchant("Café de l'Île", "5814", "Paris", "FR", "EUR", 1_250, 0.4),
    Merchant("Gasthaus zur alten Linde", "5812", "München", "DE", "EUR", 4_200, 0.5),
    Merchant("Trattoria da Nello", "5812", "Roma", "IT", "EUR", 5_600, 0.5),
    Merchant("Librería del Puerto", "5942", "Barcelona", "ES", "EUR", 2_300, 0.6),
    Merchant("Souq Spice House", "5499", "Kuwait City", "KW", "KWD", 7_500, 0.6),
    Merchant("Gulf Road Electronics", "5732", "Kuwait City", "KW", "KWD", 68_500, 0.8),
)

FEN_PER_MINOR_UNIT: Final = {"JPY": 4.8, "KRW": 0.52, "HKD": 0.92, "USD": 7.15, "EUR": 8.3, "KWD": 2.33}
"""Rough rates, for foreign purchases that are billed in CNY."""

ROUND_TO: Final = {"CNY": 10, "JPY": 10, "KRW": 100, "HKD": 10, "USD": 1, "EUR": 5, "KWD": 5}
"""Prices are multiples of so many minor units."""

"""WeChat's typed fields as the simulated platform checks them."""

import pytest

from loadtest.providers.fields import faulty_key

GOOD = {
    "thing1": ["尾号0426的信用卡", "x" * 20, "café — 7"],
    "character_string2": ["****0426", "A" * 32],
    "time3": ["13:05", "2026年11月22日 13:05", "2026-11-22 13:05:59", "09:00~17:30"],
    "date4": ["2026年11月22日", "2026-11-22 13:05"],
    "amount5": ["¥72.61", "¥1,234,567.50", "HK$12", "CHF 12.00", "0", "100元", "￦50000", "1234567890"],
    "phrase6": ["已扣款", "消费成功啦"],
    "const7": ["消费"],
    "phone_number8": ["+86 138-0013-8000"],
    "car_number9": ["京A12345"],
    "number10": ["12.5"],
    "letter11": ["abc"],
    "symbol12": ["*#"],
    "name13": ["王小明", "John Smith"],
    "keyword1": ["a historic template takes what it gets, at any length"],
    "first": ["您好"],
}

BAD = {
    "thing1": ["", "x" * 21],
    "character_string2": ["", "尾号0426", "A" * 33],
    "time3": ["", "24:00", "12:60", "2026年11月22日", "noon"],
    "date4": ["", "13:05"],
    "amount5": ["", "-¥5.00", "¥12345678901", "¥123456789.01", "¥", "¥¥5", "5 CNY", "¥1.", "１２"],
    "phrase6": ["", "消费成功了啊", "paid", "消费!"],
    "const7": ["", "x" * 21],
    "phone_number8": ["", "1" * 18, "电话"],
    "car_number9": ["", "123456789"],
    "number10": ["", "12a", "1" * 33],
    "letter11": ["", "a1"],
    "symbol12": ["", "******"],
    "name13": ["", "王" * 11, "J" * 21],
    "keyword1": [""],
    "first": [""],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in GOOD.items() for value in values])
def test_a_value_inside_its_rule_passes(key: str, value: str) -> None:
    assert faulty_key({key: value}) is None


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_a_value_outside_its_rule_names_its_key(key: str, value: str) -> None:
    assert faulty_key({"thing99": "fine", key: value}) == key


def test_keys_from_outside_are_remembered_only_up_to_a_bound() -> None:
    # Given far more keys than a template has, when all are checked, then each still gets its rule.
    for number in range(3000):
        assert faulty_key({f"phrase{number}": "x"}) == f"phrase{number}"

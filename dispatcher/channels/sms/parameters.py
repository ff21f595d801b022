"""Template parameters: Aliyun and Tencent send a template that they have approved, filled with values of ours.

The configuration says which of their templates belongs to ours and what its parameters are. That is checked whole when
the channel is made, so that no alert finds the mistakes.
"""

from __future__ import annotations

import difflib

import msgspec

from dispatcher.channels.base import CannotPrepare
from dispatcher.config_sms import SmsVendor
from dispatcher.errors import ConfigurationError
from dispatcher.model.alert import Alert
from templates.choose import DEFAULT_TEMPLATE, stand_in
from templates.errors import RenderError, UnknownTemplate, reason_of
from templates.facts import FIELDS, Field, SwipeFacts
from templates.library import DEFAULT_LOCALE, Library, fallbacks
from templates.text import cut, units, without_emoji
from templates.words import words_for

MAX_PARAM_UNITS = 20
"""Of a merchant or another text: vendors refuse a long variable (a reviewed template says what may stand there)."""


class Parameter(msgspec.Struct, frozen=True):
    """``name`` is the vendor's, ``field`` ours."""

    name: str
    field: Field


class Filled(msgspec.Struct, frozen=True):
    """What is sent of one alert: the vendor's template, and its values by the vendor's names, in order."""

    code: str
    values: dict[str, str]

    def __repr__(self) -> str:
        return f"<Filled {self.code}>"


class VendorTemplates:
    """The templates of one account. ``max_units`` is how long a text among the values may be, in UTF-16 units.

    ``swipe`` needs a code and parameters. An alert by any other template that has none is told by those of ``swipe`` if
    it is about a movement of a card, and else goes on to its next channel.

    Raises `ConfigurationError` (with ``account``'s key) for a template with one of the two and not the other, and for a
    parameter that is no field of ours or one that may be empty.
    """

    def __init__(self, account: str, section: SmsVendor, library: Library, max_units: int = MAX_PARAM_UNITS) -> None:
        self._account = account
        self._codes = dict(section.template_codes)
        self._max_units = max_units
        self._library = library
        known = {template.id for template in library}
        for key in section.template_codes:
            self._must_be_known(f"template_codes.{key}", key.partition("/")[0], known)
        for key in section.template_params:
            self._must_be_known(f"template_params.{key}", key, known)
        self._params: dict[str, list[Parameter]] = {}
        named = {DEFAULT_TEMPLATE, *section.template_params, *(key.partition("/")[0] for key in self._codes)}
        for template in sorted(named):
            if template not in self._codes:
                raise self._wrong("template_codes", f'has no code for template "{template}"; add {template} = "…"')
            if template not in section.template_params:
                example = f'{template} = ["tail", "amount", "merchant"]'
                raise self._wrong("template_params", f'says nothing of template "{template}"; add {example}')
            params = [self._parameter(template, text) for text in section.template_params[template]]
            if len({one.name for one in params}) < len(params):
                key = f"template_params.{template}"
                raise self._wrong(key, 'gives a name twice; write "first=tail", "second=tail" for two of one field')
            self._params[template] = params

    def fill(self, alert: Alert) -> Filled:
        """The vendor's template for this alert's locale (``"swipe/en"`` before ``"swipe"``) and its values.

        Raises `CannotPrepare`.
        """
        recipient = alert.recipient
        facts = SwipeFacts(event=alert.event, timezone=recipient.timezone, day_total_minor=alert.day_total)
        try:
            template = stand_in(self._library.template(alert.template), self._params)
            if template is None:
                raise CannotPrepare("template:no-sms-part")
            code, locale = self._code(template, recipient.locale)
            words = words_for(locale)
            values = {one.name: self._fit(one.field, one.field.read(facts, words)) for one in self._params[template]}
        except (RenderError, UnknownTemplate) as error:
            raise CannotPrepare(reason_of(error)) from None
        return Filled(code, values)

    def _code(self, template: str, locale: str) -> tuple[str, str]:
        for one in fallbacks(locale):
            if (code := self._codes.get(f"{template}/{one}")) is not None:
                return code, one
        return self._codes[template], DEFAULT_LOCALE

    def _fit(self, field: Field, value: str) -> str:
        """A text is cut and an amount loses its separators; what cannot be shortened is left for the vendor to judge:
        an amount that lost a digit would be a lie."""
        if field.type == "text":
            return cut(without_emoji(value), self._max_units) or "-"
        if field.type == "money" and units(value) > self._max_units:
            return value.replace(",", "")
        return value

    def _parameter(self, template: str, text: str) -> Parameter:
        name, _, ours = text.rpartition("=")
        field = FIELDS.get(ours)
        key = f"template_params.{template}"
        if field is None:
            near = difflib.get_close_matches(ours, FIELDS, 1)
            guess = f"did you mean {near[0]}? " if near else ""
            raise self._wrong(key, f"names a field that does not exist; {guess}known are {', '.join(sorted(FIELDS))}")
        if field.optional:
            raise self._wrong(key, f"{ours} may be empty, and a vendor refuses an empty parameter; leave it out")
        return Parameter(name or ours, field)

    def _must_be_known(self, key: str, template: str, known: set[str]) -> None:
        if template not in known:
            raise self._wrong(key, f"there is no such template; known are {', '.join(sorted(known))}")

    def _wrong(self, key: str, what: str) -> ConfigurationError:
        return ConfigurationError(f"channels.{self._account}.{key}: {what}")

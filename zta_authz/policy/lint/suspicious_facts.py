"""Find values of rules that no fact and no login has: country codes, levels of `acr`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from zta_authz.policy.lint.implication import dimension_of, members_of
from zta_authz.policy.lint.unmatchable import SuspiciousValue
from zta_authz.policy.rules.fact_values import country
from zta_authz.policy.rules.matchers import Exact
from zta_authz.policy.rules.require_authentication import AuthenticationClause

if TYPE_CHECKING:
    from zta_authz.policy.lint.unmatchable import Reachability
    from zta_authz.policy.rules.clauses import Clause

_ISO_3166: Final = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT "
    "BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH "
    "ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT "
    "HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS "
    "LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI "
    "NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG "
    "SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG "
    "UM US UY UZ VA VC VE VG VI VN VU WF WS XK YE YT ZA ZM ZW "
)
"""ISO 3166-1 alpha-2, and XK, which databases use for Kosovo."""
_MEANT: Final = {"UK": "GB", "EL": "GR"}


def suspicious_facts(clause: Clause, reach: Reachability) -> list[SuspiciousValue | None]:
    """A finding for each value of the clause, None if the value may match; [] for other clauses."""
    if isinstance(clause, AuthenticationClause) and clause.at_least is not None and reach.has_tokens:
        return [_level(clause, clause.at_least, reach)]
    if dimension_of(clause) != ("fact", country):
        return []
    return [_country(clause.label, member.value) for member in members_of(clause) if isinstance(member, Exact)]


def _country(label: str, code: str) -> SuspiciousValue | None:
    if f"{code} " in _ISO_3166:
        return None
    hint = f"write `{_MEANT[code]}`" if code in _MEANT else "correct the code"
    return SuspiciousValue(label, code, "ISO 3166-1 assigns this code to no country", hint, certain=False)


def _level(clause: AuthenticationClause, least: int, reach: Reachability) -> SuspiciousValue | None:
    """Why no `acr` that the clause accepts has the level, for the issuers of the rule's workloads."""
    if all(level < least for levels in clause.levels.values() for level in levels.values()):
        return None  # the loader has already warned
    issuers = clause.levels if reach.sources is None or "" in reach.issuers else clause.levels.keys() & reach.issuers
    pairs = [pair for issuer in issuers for pair in clause.levels[issuer].items()]
    highest = max((level for acr, level in pairs if not clause.acr or acr in clause.acr), default=None)
    if highest is not None and highest >= least:
        return None
    reason = (
        "no IssuerPolicy gives an `acr` of its issuers a level"
        if highest is None
        else f"the highest level of an `acr` is {highest}"
    )
    hint = "raise a level in `acrLevels` of the IssuerPolicy, or ask for less"
    return SuspiciousValue(f"{clause.label}.acrAtLeast", str(least), reason, hint, certain=True)

"""Scores a request by the rules of its market."""

import attrs

LIMITS = {"eu": 0.4, "us": 0.6}


@attrs.frozen
class Request:
    amount: float = attrs.field(validator=attrs.validators.ge(0))
    income: float = attrs.field(validator=attrs.validators.gt(0))


def accept(request: Request, market: str) -> bool:
    return request.amount / request.income <= LIMITS[market]

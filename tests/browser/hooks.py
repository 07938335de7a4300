"""What an OpenAPI document cannot say, for schemathesis: rules between parameters. Questions that break them are bent to
keep them; those of a single parameter stay as they are."""

import datetime

import schemathesis

MOST_DAYS = 400
MOST_DAYS_BY_HOUR = 31
MOST_ITEMS = 10_000


def day(text):
    try:
        return datetime.date.fromisoformat(text) if isinstance(text, str) and len(text) == 10 else None
    except ValueError:
        return None


def number(value):
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else None


def sent(value):
    """A value as a URL has it, where a list of one is the same as its element."""
    if not isinstance(value, list):
        return value
    elements = [element for element in value if element is not None]
    return elements[0] if len(elements) == 1 else elements


@schemathesis.hook
def before_call(context, case, kwargs):
    """Bends a question; whether it is still a wrong one is judged again afterwards."""
    if not case.query:
        return
    # An empty value counts as none, as forms send it.
    query = {name: sent(value) for name, value in case.query.items() if sent(value) not in ("", None, {}, [])}
    first, last, days = day(query.get("from")), day(query.get("to")), number(query.get("days"))
    if first and last:
        # From, to and days at once say too much. Days that are wrong by themselves stay, and are refused.
        if days:
            del query["days"]
        # The first day is not after the last one.
        first, last = min(first, last), max(first, last)
        most = datetime.timedelta(days=(MOST_DAYS_BY_HOUR if "hour" in case.operation.path else MOST_DAYS) - 1)
        last = min(last, first + most) if first < datetime.date.max - most else first
        query["from"], query["to"], days = first.isoformat(), last.isoformat(), (last - first).days + 1
    elif first and "days" not in query:
        # Up to the last day that has rows, which may be too far.
        query["days"] = days = 1
    # Rows times days are bounded.
    limit = number(query.get("limit"))
    if limit and limit * (days or 1) > MOST_ITEMS:
        query["limit"] = max(1, MOST_ITEMS // days)
    if query != case.query:
        case.query = query

"""Runs queries by DuckDB: a list of texts as JSON on standard input, a list of the rows of each on standard output.

A row has the text of each of its columns, as an item of a report has it. Clocks are of another zone than those of the
reports, which must not matter.
"""

import datetime
import decimal
import json
import sys

import duckdb


def text(value):
    match value:
        case None:
            return None
        case decimal.Decimal():
            digits = f"{value:f}"
            return digits.rstrip("0").rstrip(".") if "." in digits else digits
        case datetime.datetime():
            digits = value.isoformat()
            return (digits.rstrip("0") if "." in digits else digits) + "Z"
        case datetime.date():
            return value.isoformat()
        case int() | str():
            return str(value)
    raise TypeError(f"{value!r} is no value of an item")


duckdb.sql("SET TimeZone = 'Asia/Tokyo'")
answers = []
for query in json.load(sys.stdin):
    try:
        answer = duckdb.sql(query)
        answers.append([dict(zip(answer.columns, map(text, row))) for row in answer.fetchall()])
    except (duckdb.Error, TypeError) as error:
        answers.append(str(error))
json.dump(answers, sys.stdout)

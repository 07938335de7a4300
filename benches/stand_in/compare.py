"""`make test-stand-in`: random requests to the stand-in and to dynoxide, whose answers must be equal, and so must be
the write units that both count. The requests are those of the program: conditional statements, writes of the ledger,
reads.

    compare.py [--seed 1]
"""

import argparse
import json
import random
import sys
from pathlib import Path

from botocore.exceptions import ClientError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stacks import Stack  # noqa: E402

ITEMS, LEDGER = "x-track_level_reports", "x-music_streams_ledger"
KEYS = [{"track_id": {"S": f"t{item}"}, "report_date": {"S": "2024-01-01"}} for item in range(70)]
INSERT = (f"INSERT INTO \"{ITEMS}\" VALUE {{'track_id': ?, 'report_date': ?, 'version': ?, 'sketch': ?, 'names': ?, "
          "'applied': ?}")
UPDATE = (f"UPDATE \"{ITEMS}\" SET \"version\" = ? SET \"x\" = ? REMOVE \"applied\" REMOVE \"nothing\" "
          "WHERE \"report_date\" = ? AND \"track_id\" = ? AND \"version\" {} ?")


def plain(answer):
    """An answer without what the two may say in their own words, and sets in order."""
    if isinstance(answer, dict):
        own = ("Message", "TableName", "ScannedCount", "ResponseMetadata")
        answer = {name: plain(value) for name, value in answer.items() if name not in own}
        answer |= {name: sorted(answer[name]) for name in ("NS", "SS") if name in answer}
        if isinstance(answer.get("Responses"), dict):
            order = lambda item: json.dumps(item, sort_keys=True, default=str)
            answer["Responses"] = {table: sorted(items, key=order) for table, items in answer["Responses"].items()}
        return answer
    return [plain(value) for value in answer] if isinstance(answer, list) else answer


def statements(choose):
    """A request of conditional statements, about different items."""
    for item in choose.sample(range(60), choose.randint(1, 25)):
        id, date, version = {"S": f"t{item}"}, {"S": "2024-01-01"}, choose.randint(1, 4)
        if choose.random() < 0.3:
            sketch, names = {"B": choose.randbytes(choose.randint(1, 30))}, {"L": [{"M": {"a": {"S": "ü\"'?"}}}]}
            statement, parameters = INSERT, [id, date, {"N": str(version)}, sketch, names, {"NS": ["3", "4"]}]
        else:
            statement = UPDATE.format(choose.choice(["=", "=", "<"]))
            next_version, text = {"N": str(version % 4 + 1)}, {"S": "a" * choose.randint(1, 9)}
            parameters = [next_version, text, date, id, {"N": str(version)}]
        yield {"Statement": statement, "Parameters": parameters, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


def of_ledger(choose):
    """A write or a read of the ledger, with its name."""
    number = lambda: {"N": str(choose.randint(0, 5))}
    key = {"pk": {"S": f"p{choose.randint(0, 8)}"}, "sk": {"S": f"s{choose.randint(0, 2)}"}}
    update = lambda expression, condition=None, **values: {
        "Key": key, "UpdateExpression": expression,
        "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
        **({"ConditionExpression": condition} if condition else {}),
        **({"ExpressionAttributeNames": {"#b": "batch"}} if "#b" in f"{expression}{condition}" else {}),
    }
    due = "attribute_not_exists(started_at) OR started_at <= :due OR started_at > :soon"
    held = "#b = :h OR (attribute_not_exists(#b) AND quarantined_by = :h)"
    kind, request = choose.choice([
        ("put_item", {"Item": {**key, "batch": number()}, "ConditionExpression": "attribute_not_exists(pk)"}),
        ("put_item", {"Item": {**key, "quarantined_by": number()}}),
        ("update_item", update("SET #b = :b REMOVE aside_until", "#b = :h", b=number(), h=number())),
        ("update_item", update("SET started_at = :now", due, now=number(), due=number(), soon=number())),
        ("update_item", update("SET entry = :e, since = if_not_exists(since, :s)", e={"S": "e"}, s=number())),
        ("update_item", update("SET expires_at = :x", held, x=number(), h=number())),
        ("delete_item", {"Key": key, "ConditionExpression": "entry = :e OR attribute_not_exists(pk)",
                         "ExpressionAttributeValues": {":e": {"S": "e"}}}),
        ("get_item", {"Key": key, "ConsistentRead": True}),
        ("query", {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": key["pk"]}}),
        ("transact_write_items", update("SET aside_until = :u ADD times_aside :one REMOVE #b", "#b = :h",
                                        u=number(), one={"N": "1"}, h=number())),
    ])
    if kind != "transact_write_items":
        return kind, {"TableName": LEDGER, **request}
    delete = {"TableName": LEDGER, "Key": {"pk": {"S": "aside"}, "sk": key["sk"]}}
    return kind, {"TransactItems": [{"Update": {"TableName": LEDGER, **request}}, {"Delete": delete}]}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seed", type=int, default=1)
    choose = random.Random(arguments.parse_args().seed)
    stacks = [Stack("stand-in"), Stack("dynoxide")]
    for stack in stacks:
        stack.deploy("x")
    clients = [stack.client("dynamodb") for stack in stacks]
    answers, done, units = 0, 0, 0

    def compare(operation, **request):
        nonlocal answers
        both = []
        for client in clients:
            try:
                both.append(plain(getattr(client, operation)(**request)))
            except ClientError as error:
                reasons = [reason["Code"] for reason in error.response.get("CancellationReasons", [])]
                both.append({"error": error.response["Error"]["Code"], "reasons": reasons})
        answers += 1
        if both[0] != both[1]:
            sys.exit(f"{operation} of {request}:\n  the stand-in: {both[0]}\n  dynoxide: {both[1]}")
        return both[0]

    try:
        for round in range(1500):
            answer = compare("batch_execute_statement", Statements=list(statements(choose)))
            done += sum("Error" not in response for response in answer["Responses"])
            operation, request = of_ledger(choose)
            compare(operation, **request)
            if round % 20 == 0:
                some = {"ProjectionExpression": "track_id, #v", "ExpressionAttributeNames": {"#v": "version"}}
                compare("batch_get_item", RequestItems={ITEMS: {"Keys": KEYS, "ConsistentRead": True}})
                compare("batch_get_item", RequestItems={ITEMS: {"Keys": KEYS, **some}})
                compare("scan", TableName=ITEMS, FilterExpression="report_date = :d AND version > :v",
                        ExpressionAttributeValues={":d": {"S": "2024-01-01"}, ":v": {"N": "3"}})
        stacks[0].reset()
        insert = f"INSERT INTO \"{ITEMS}\" VALUE {{'track_id': ?, 'report_date': ?, 'x': ?, 'n': ?, 'l': ?, 's': ?}}"
        large = [{"Statement": insert, "Parameters": [
            {"S": f"large{item}"}, {"S": "2024-01-01"}, {"S": "y" * choose.randint(1, 9000)}, {"N": "120300"},
            {"L": [{"M": {"a": {"N": "-15"}, "b": {"S": "cc"}}}]}, {"NS": ["1", "22", "333"]}]} for item in range(25)]
        clients[0].batch_execute_statement(Statements=large)
        counted = clients[1].batch_execute_statement(Statements=large, ReturnConsumedCapacity="TOTAL")
        units = sum(table["CapacityUnits"] for table in counted["ConsumedCapacity"])
        ours = stacks[0].counts()[1]["track_level_reports"]["write_units"]
        if ours != units:
            sys.exit(f"the stand-in counts {ours} write units, dynoxide {units}")
    finally:
        for stack in stacks:
            stack.stop()
    print(f"{answers:,} answers are equal, with {done:,} statements that succeeded, and {units:.0f} write units")


main()

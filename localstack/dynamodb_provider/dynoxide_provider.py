"""LocalStack's DynamoDB, answered by dynoxide.

LocalStack's own provider downloads a Java runtime and DynamoDB Local when it starts. This one forwards every
request to the dynoxide process named by DYNOXIDE_ENDPOINT, so that CloudFormation creates its tables there too.
"""

import os

from localstack.aws.api.dynamodb import DynamodbApi
from localstack.aws.forwarder import HttpFallbackDispatcher
from localstack.services.plugins import Service, aws_provider


class DynoxideProvider(DynamodbApi):
    """No operation of its own: whatever is not implemented here is forwarded."""


@aws_provider(api="dynamodb", name="dynoxide")
def dynamodb():
    endpoint = os.environ["DYNOXIDE_ENDPOINT"]
    return Service.for_provider(
        DynoxideProvider(),
        dispatch_table_factory=lambda provider: HttpFallbackDispatcher(provider, lambda *_: endpoint),
    )

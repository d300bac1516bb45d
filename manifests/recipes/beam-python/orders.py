"""A Beam pipeline whose workers write to a service behind Tidegate, each request with the worker's own identity.

    python orders.py --url https://orders.example.com --audience https://orders.sales.example \
        --runner DataflowRunner --project PROJECT --region europe-west4 --temp_location gs://BUCKET/tmp \
        --job_name orders-etl --service_account_email orders-etl@PROJECT.iam.gserviceaccount.com \
        --setup_file ./setup.py
"""

import argparse
import json
import urllib.error
import urllib.request

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

import tidegate_tokens


class WriteOrder(beam.DoFn):
    """Posts each order, and says who refused one and why."""

    def __init__(self, url, audience):
        self._url = url
        self._audience = audience

    def setup(self):
        # Once per worker. All DoFns of a process share what they get here.
        self._tokens = tidegate_tokens.for_audience(self._audience)
        self._http = urllib.request.build_opener(tidegate_tokens.NoRedirects)

    def process(self, order):
        request = urllib.request.Request(
            f"{self._url}/v1/orders/{order['id']}",
            method="POST",
            data=json.dumps(order).encode(),
            # Asked for every request: tokens live for an hour, workers for days.
            headers={"Content-Type": "application/json", **self._tokens.headers()},
        )
        try:
            with self._http.open(request, timeout=30) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            # Beam tries the bundle again. Tidegate's reason and decision id are in the body.
            raise RuntimeError(f"order {order['id']}: {error.code} {error.read(2000)!r}") from None
        yield order["id"]


def main(arguments=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--audience", required=True, help="the audience of the service's Guard")
    ours, beams = parser.parse_known_args(arguments)
    with beam.Pipeline(options=PipelineOptions(beams)) as pipeline:
        _ = (
            pipeline
            | beam.Create([{"id": 7, "amount": 3}, {"id": 8, "amount": 5}])
            | beam.ParDo(WriteOrder(ours.url, ours.audience))
        )


if __name__ == "__main__":
    main()

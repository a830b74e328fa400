"""Runs a handler over the lines of a text with Spark, in their order; the handler may be in any language.

spark-submit pipe.py SOURCE TARGET HANDLER [WORD]...

Each partition has a `faas-worker map` with one process. The program and the handler must be on all nodes,
at the same paths.
"""

import json
import os
import shlex
import sys

from pyspark.sql import SparkSession

PROGRAM = os.environ.get("MAP_PROGRAM", "/usr/local/bin/faas-worker")


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    source, target, *handler = sys.argv[1:]
    # --json, for a line break in an element would make two lines of it. --exit-zero leaves failed items
    # to the reader of the replies, where status 1 would have the whole partition done again.
    words = [PROGRAM, "map", "--json", "--exit-zero", "-j", "1", "--", *handler]
    context = SparkSession.builder.appName("map").getOrCreate().sparkContext
    replies = (
        context.textFile(source)
        .map(json.dumps)
        # By default the command has no environment, and its exit status does not count.
        .pipe(shlex.join(words), env=dict(os.environ), checkCode=True)
    )
    replies.saveAsTextFile(target)


if __name__ == "__main__":
    main()
